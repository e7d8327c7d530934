"""Decoding in processes of their own: a file that ends the decoder, or fills its memory, or never ends, costs its own
row alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import MediaError
from ..manifest import FrameSpec
from ..sampling import Windows
from ..video import Frames
from .base import Cut
from .wire import receive_frames, receive_line, send

SECONDS = 900.0
"""For one request; decoding an hour of 1080p whole takes about as long on one core."""
MEMORY = 4 << 30
"""Address space of a decoding process in bytes; frames of 8K take about 1.5 GB of it."""


class DecoderProcesses:
    """As many processes as are asked at once; each waits for its next file, and a dead one is replaced."""

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._idle: list[_Child] = []
        self._closed = False
        self._lock = threading.Lock()

    def windows(self, path: Path, windows: Windows) -> list[Cut]:
        with self._borrowed() as child:
            return child.windows(path, windows)

    def read(self, path: Path, spec: FrameSpec, cuts: Sequence[Cut]) -> list[Frames | MediaError]:
        try:
            with self._borrowed() as child:
                return child.read(path, spec, cuts)
        except MediaError as error:
            return [error] * len(cuts)

    def close(self) -> None:
        """End the processes: those that are being asked, when they have answered."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.stop()

    @contextmanager
    def _borrowed(self) -> Iterator[_Child]:
        with self._lock:
            # The last one back goes first: it may still hold the packets of the file that is asked for again.
            child = self._idle.pop() if self._idle else None
        if child is None or child.is_dead:
            child = _Child(self._seconds, self._memory)
        try:
            yield child
        finally:
            with self._lock:
                keep = not (self._closed or child.is_dead)
                if keep:
                    self._idle.append(child)
            if not keep:
                child.stop()


class _Child:
    """One process, asked by one thread."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._late = seconds, False
        package = str(Path(__file__).parents[2])
        search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        # PYTHONSAFEPATH: a module in the folder that the user happens to stand in is not ours.
        # OPENBLAS_NUM_THREADS: each of its threads would take address space, and nothing is multiplied there.
        environment = {**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"{__package__}.child", str(memory)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def windows(self, path: Path, windows: Windows) -> list[Cut]:
        def receive(_: IO[bytes], message: dict[str, Any]) -> list[Cut]:
            return [(float(start), None if end is None else float(end)) for start, end in message["windows"]]

        found: list[Cut] = self._ask(path, {"windows": [windows.window, windows.stride]}, receive)
        return found

    def read(self, path: Path, spec: FrameSpec, cuts: Sequence[Cut]) -> list[Frames | MediaError]:
        request = {"cuts": list(cuts), "count": spec.count, "size": spec.size, "sampling": spec.sampling}

        def receive(answers: IO[bytes], message: dict[str, Any]) -> list[Frames | MediaError] | None:
            found = receive_frames(answers, message, spec)
            return found if found is not None and len(found) == len(cuts) else None

        found: list[Frames | MediaError] = self._ask(path, request, receive)
        return found

    def _ask(self, path: Path, request: dict[str, Any], receive: Any) -> Any:
        """What `receive` makes of the answer. MediaError where the file is bad, or the process ended over it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(self._seconds, self._stop_late)
        timer.start()
        try:
            send(self._process.stdin, {"path": os.fsencode(path).hex(), **request})
            message = receive_line(self._process.stdout)
            if message is not None and "error" in message:
                raise MediaError(str(message["error"]))
            found = None if message is None else receive(self._process.stdout, message)
        except (OSError, KeyError, TypeError, ValueError):
            found = None  # a broken pipe, or an answer that is none
        finally:
            timer.cancel()
        if found is None:
            raise MediaError(f"{path} {self._end()}; leave it out, or encode it again")
        return found

    def _end(self) -> str:
        """How the process ended over a file."""
        self.stop()
        status = self._process.returncode
        if self._late:
            return f"took longer than {self._seconds:g} s to decode"
        if status < 0:
            return f"ended the process that decoded it ({signal.Signals(-status).name})"
        return f"ended the process that decoded it (exit status {status})"

    def _stop_late(self) -> None:
        self._late = True
        self._process.kill()

    def stop(self) -> None:
        """A process that is well ends with its input; one that is not is killed."""
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # what was still to be sent to a dead process
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
