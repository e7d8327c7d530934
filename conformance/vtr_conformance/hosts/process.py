"""Any host in a process of its own, behind the interface of one in this process."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vtr_runtime.backends.shapes import concrete
from vtr_runtime.bundle import Bundle
from vtr_runtime.stages import BEFORE_THE_GRAPHS, stage_of

from ..cases import Case
from .base import Arrays, Host
from .child import Child
from .errors import HostError, HostProtocolError
from .protocol import (
    PROTOCOL,
    Answered,
    Failed,
    Hello,
    NotRun,
    check_tensor,
    read_hello,
    read_reply,
    read_tensors,
    write_tensors,
)

# Before the first answer of a graph or stage an engine may have to be built, which takes minutes. A later one is late
# when it takes many times what the slowest took so far: batches differ in size, and the machine may be busy.
FIRST_SECONDS = 900.0
LATER_SECONDS = 120.0
LATER_TIMES = 30
# So many failures one after the other, and nothing more is asked.
GIVE_UP = 2
NO_STAGE = "the host does not have this stage"


@dataclass(frozen=True)
class ProcessOptions:
    """`seconds` is the time limit of every request (None: see FIRST_SECONDS); the log of a host that fails is kept in
    the folder `logs`."""

    seconds: float | None = None
    logs: Path | None = None


class ProcessHost(Host):
    """Drives a command that speaks the protocol of docs/certify-a-host.md.

    Where the process crashes, hangs or sends what is not the protocol, that case fails with a HostError and the process
    is started again for the next one; after GIVE_UP of these in a row it is not. One that never says hello is called
    `name` and `backend`."""

    def __init__(
        self,
        command: Sequence[str],
        bundle: Bundle,
        *,
        name: str,
        backend: str,
        options: ProcessOptions | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.backend, self.precision = name, backend, bundle.manifest.graph_precision
        self._command, self._bundle = list(command), bundle
        self._options, self._environment = options or ProcessOptions(), environment
        self._specs = bundle.manifest.graphs.named()
        self._hello: Hello | None = None
        self._child: Child | None = None
        self._number = self._failures = 0
        self._error: HostError | None = None  # why nothing more is asked
        self._longest: dict[str, float] = {}  # seconds, by kind of request, of the process that runs
        self._temporary = tempfile.TemporaryDirectory(prefix="vtr-conformance-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        with contextlib.suppress(HostError):  # the first case starts it again, and fails where that fails too
            self._wake()

    def answer(self, case: Case) -> Arrays | str:
        stage = stage_of(case.stage).name
        if self.note is not None and stage not in BEFORE_THE_GRAPHS:
            return self.note
        if stage in self._wake().stages:
            return self._answer(case)
        if case.arrays is None:
            return NO_STAGE
        return self.answer_in_graph(case.stage, case.arrays)

    def lacks(self, graph: str) -> str | None:
        if self.note is not None or self._hello is None or graph in self._hello.graphs:
            return self.note
        return f"the host does not run the graph {graph}"

    def run(self, graph: str, feed: Arrays) -> Arrays:
        return self.timed(graph, feed)[0]

    def timed(self, graph: str, feed: Arrays) -> tuple[Arrays, float]:
        """The seconds are the host's own: what it takes to get the tensors there and back is not in them."""
        found = self._exchange(f"run {graph}", {"do": "run", "graph": graph}, feed)
        if isinstance(found, str):
            raise HostProtocolError(f"it lists the graph {graph} and does not run it: {found}")
        outputs, seconds = found
        return self._outputs(graph, feed, outputs), seconds

    def close(self) -> None:
        if self._child is not None:
            self._child.stop({"id": self._number + 1, "do": "bye"})
            self._child = None
        self._temporary.cleanup()

    def _answer(self, case: Case) -> Arrays | str:
        message: dict[str, Any] = {"do": "answer", "stage": case.stage}
        if case.media is not None:
            message["media"] = str(case.media.absolute())
        elif case.arrays is None:
            message["texts"] = list(case.texts)
        found = self._exchange(case.stage, message, case.arrays)
        if isinstance(found, str):
            return found
        outputs, _ = found
        for name, want in case.expected.items():
            if name not in outputs:
                raise HostProtocolError(f"it gave no tensor {name}; it gave: {', '.join(outputs) or 'none'}")
            # How many rows there are is the answer's own: too many frames are the stage's failure.
            check_tensor(name, outputs[name], str(want.dtype), (None,) * want.ndim)
        return {name: outputs[name] for name in case.expected}

    def _outputs(self, graph: str, feed: Arrays, found: Arrays) -> Arrays:
        """Those that the manifest lists. The first of them, the embedding or the scores, every host has."""
        spec = self._specs[graph]
        axes = {
            axis: size
            for tensor in spec.inputs
            for axis, size in zip(tensor.shape, feed[tensor.name].shape, strict=True)
            if isinstance(axis, str)
        }
        for tensor in spec.outputs:
            if tensor.name in found:
                check_tensor(tensor.name, found[tensor.name], tensor.dtype, concrete(tensor.shape, axes))
        first = spec.outputs[0].name
        if first not in found:
            raise HostProtocolError(f"it gave no tensor {first} of {graph}; it gave: {', '.join(found) or 'none'}")
        return {tensor.name: found[tensor.name] for tensor in spec.outputs if tensor.name in found}

    def _exchange(self, kind: str, message: dict[str, Any], tensors: Arrays | None) -> tuple[Arrays, float] | str:
        """Send tensors, and read those that come back and their seconds; or why they were not made."""
        self._wake()
        given, asked = self._folder / "inputs.safetensors", self._folder / "outputs.safetensors"
        asked.unlink(missing_ok=True)
        if tensors is not None:
            write_tensors(given, tensors)
            message = {**message, "tensors": str(given)}
        reply = self._ask(kind, {**message, "output": str(asked)})
        if isinstance(reply, Failed):
            raise HostError(reply.error)
        return reply.not_run if isinstance(reply, NotRun) else (read_tensors(asked), reply.seconds)

    def _ask(self, kind: str, message: dict[str, Any]) -> Answered | NotRun | Failed:
        assert self._child is not None
        self._number += 1
        start = time.monotonic()
        try:
            reply = read_reply(self._child.ask({"id": self._number, **message}, self._limit(kind)))
        except HostError as error:
            self._fail(error)
        self._failures = 0
        self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - start)
        return reply

    def _limit(self, kind: str) -> float:
        if self._options.seconds is not None:
            return self._options.seconds
        if kind not in self._longest:
            return FIRST_SECONDS
        return max(LATER_SECONDS, LATER_TIMES * max(self._longest.values()))

    def _wake(self) -> Hello:
        """Start the process where there is none. HostError where it fails, or failed too often."""
        if self._error is not None:
            raise type(self._error)(str(self._error))
        if self._child is None or self._hello is None:
            try:
                self._hello = self._start()
            except HostError as error:
                self._fail(error)
            self.name, self.backend = self._hello.name, self._hello.backend
            self.precision, self.note = self._hello.precision, self._hello.note
            self.version = self._hello.version
        return self._hello

    def _start(self) -> Hello:
        self._longest.clear()
        self._child = Child(self._command, self._folder / "log.txt", environment=self._environment)
        message = {"id": 0, "do": "hello", "protocol": PROTOCOL, "bundle": str(self._bundle.folder.absolute())}
        hello = read_hello(self._child.ask(message, self._limit("hello")))
        if isinstance(hello, Failed):
            self._failures = GIVE_UP  # it says so itself: nothing changes when it is asked again
            raise HostError(f"the host cannot start: {hello.error}")
        return hello

    def _fail(self, error: HostError) -> NoReturn:
        """End the process. The next request starts it again, unless it failed too often."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        kept = self._keep_log()
        told = type(error)(f"{error}; its log: {kept}" if kept else str(error))
        self._failures += 1
        if self._failures >= GIVE_UP:
            self._error = type(error)(f"nothing more is asked of this host: {error}")
        raise told from None

    def _keep_log(self) -> Path | None:
        log, folder = self._folder / "log.txt", self._options.logs
        if folder is None or not log.is_file() or not log.stat().st_size:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / (re.sub(r"[^\w.-]+", "-", f"{self.name}-{self.backend}") + ".log")
        return Path(shutil.copy(log, kept))
