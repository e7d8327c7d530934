"""A process that answers lines with lines: started, asked within a time limit, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vtr_runtime.console import printable

from .errors import HostCrashed, HostError, HostProtocolError, HostTimeout
from .protocol import MAX_LINE, SHOWN, decode, encode

# Of what a host writes to standard error: so much from the beginning, and so much from the end.
LOG_BYTES = 1 << 20
LAST_BYTES = 16 << 10
LAST_LINES = 3
# A process that is ending has so long for it, in seconds.
GRACE = 5.0


class Child:
    """Asked by one thread at a time. Its standard error is its log, which is kept in a file.

    It leads a process group of its own, so that what it started ends with it."""

    def __init__(self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        """HostError where the command cannot be started."""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"{command[0]} cannot be started ({error.strerror})") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._log = _Log(self._process.stderr, log)
        self._pending, self._ended = b"", False
        for stream in (self._in, self._out):
            os.set_blocking(stream, False)

    def ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one object and give the one that answers it. A HostError says how the process failed instead; it is then
        of no more use."""
        until = time.monotonic() + seconds
        try:
            self._send(encode(message), until)
            reply = decode(self._receive(until))
        except TimeoutError:
            self._kill()
            raise HostTimeout(f"it did not answer within {seconds:g} s and was killed{self._last_words()}") from None
        except (OSError, EOFError):
            raise HostCrashed(f"{self._ending()}{self._last_words()}") from None
        except HostProtocolError as error:
            self._kill()
            raise HostProtocolError(f"{error}{self._last_words()}") from None
        if reply.get("id") != message["id"]:
            self._kill()
            raise HostProtocolError(f"it answered request {message['id']!r} with the id {reply.get('id')!r}")
        return reply

    def stop(self, farewell: Mapping[str, Any] | None = None) -> None:
        """End the process: a well one ends by itself on `farewell`, or with its input; others are killed."""
        if self._process.poll() is None and farewell is not None:
            with contextlib.suppress(OSError, TimeoutError):
                self._send(encode(farewell), time.monotonic() + GRACE)
            _close(self._process.stdin)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self._kill()

    def _send(self, data: bytes, until: float) -> None:
        """TimeoutError where the process does not read, OSError where it is gone."""
        while data:
            _wait(self._in, select.POLLOUT, until)
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._in, data) :]

    def _receive(self, until: float) -> bytes:
        """The next line. EOFError at the end of the process's output; HostProtocolError for a line without end."""
        while b"\n" not in self._pending:
            if len(self._pending) > MAX_LINE:
                shown = printable(self._pending[:SHOWN].decode("utf-8", "replace"))
                raise HostProtocolError(f"its answer is longer than {MAX_LINE} bytes and begins with {shown!r}")
            _wait(self._out, select.POLLIN, until)
            with contextlib.suppress(BlockingIOError):
                block = os.read(self._out, 1 << 16)
                if not block:
                    raise EOFError
                self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ending(self) -> str:
        """How the process ended, after its output did."""
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._kill()
            return "it closed its standard output without an answer"
        self._kill()  # what it started may live on
        if status < 0:
            return f"it died of {_signal_name(-status)}"
        return f"it ended with status {status} before it answered"

    def _kill(self) -> None:
        """End the whole group, whatever it does; once."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot be killed
            self._process.wait(GRACE)
        for stream in (self._process.stdin, self._process.stdout):
            _close(stream)
        self._log.close()

    def _last_words(self) -> str:
        """The end of the log, for a message."""
        lines = self._log.last_lines()
        return f"; it said last: {' | '.join(lines)}" if lines else ""


class _Log:
    """Reads a stream to its end in a thread, so that its writer never waits, and keeps its beginning in a file and its
    end in memory."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._last = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        room, left_out = LOG_BYTES, 0
        with self._path.open("ab", buffering=0) as file:
            while block := os.read(self._stream.fileno(), 1 << 16):
                self._last = (self._last + block)[-LAST_BYTES:]
                with contextlib.suppress(OSError):  # a full disk must not stop the host
                    file.write(block[:room])
                left_out += max(0, len(block) - room)
                room = max(0, room - len(block))
            if left_out:
                file.write(f"\n... {left_out} bytes are left out here, up to the last {LAST_BYTES}:\n".encode())
                file.write(self._last[-left_out:])

    def last_lines(self) -> list[str]:
        lines = self._last.decode("utf-8", "replace").splitlines()
        return [printable(" ".join(line.split()))[:SHOWN] for line in lines if line.strip()][-LAST_LINES:]

    def close(self) -> None:
        """After the process has ended. A process that left the group may hold the stream open: it is not waited for."""
        self._thread.join(GRACE)
        if not self._thread.is_alive():
            self._stream.close()


def _wait(stream: int, event: int, until: float) -> None:
    """Until a stream can be read or written, or has ended. TimeoutError when that is late."""
    poll = select.poll()
    poll.register(stream, event)
    if not poll.poll(1000 * max(0.0, until - time.monotonic())):
        raise TimeoutError


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # what was still to be sent to a dead process
            stream.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
