"""The other side of the protocol for hosts in Python: `python -m vtr_conformance.hosts.serve --backend NAME` is the
runtime on one of its backends.

Another host in Python is a Host and a line, `serve(MyHost)`: see docs/certify-a-host.md."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from safetensors.numpy import load_file

from vtr_runtime.backends.base import RUN
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import VtrError

from ..cases import Case, golden_stages
from .base import Arrays, Host
from .protocol import PROTOCOL, encode, write_tensors


def serve(opener: Callable[[Bundle], Host]) -> None:
    """Answer requests on standard input until `bye` or its end. What else is printed goes to standard error."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    host: Host | None = None
    for line in requests:
        request: dict[str, Any] = json.loads(line)
        if request["do"] == "bye":
            return
        reply: dict[str, Any]
        try:
            if request["do"] == "hello":
                bundle = open_bundle(Path(request["bundle"]))
                host = opener(bundle)
                reply = _hello(host, bundle)
            else:
                assert host is not None  # hello comes first
                reply = _answer(host, request)
        except VtrError as error:
            reply = {"error": str(error)}
        _send(answers, {"id": request["id"], **reply})


def _hello(host: Host, bundle: Bundle) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "name": host.name,
        "backend": host.backend,
        "precision": host.precision,
        "version": host.version,
        "note": host.note,
        "stages": golden_stages(bundle.manifest),
        "graphs": [name for name in RUN if name in bundle.manifest.graphs.named() and host.lacks(name) is None],
    }


def _answer(host: Host, request: dict[str, Any]) -> dict[str, Any]:
    tensors: Arrays | None = load_file(request["tensors"]) if "tensors" in request else None
    start = time.perf_counter()
    found: Arrays | str
    if request["do"] == "run":
        found, seconds = host.timed(request["graph"], tensors or {})
    else:
        media = Path(request["media"]) if "media" in request else None
        case = Case("", request["stage"], {}, media, tuple(request.get("texts", ())), tensors)
        found = host.answer(case)
        seconds = time.perf_counter() - start
    if isinstance(found, str):
        return {"not_run": found}
    write_tensors(Path(request["output"]), found)
    return {"seconds": seconds}


def _send(stream: IO[bytes], message: dict[str, Any]) -> None:
    stream.write(encode(message))
    stream.flush()


def main() -> None:
    import click

    from . import open_in_process

    @click.command()
    @click.option("--backend", required=True)
    def command(backend: str) -> None:
        serve(lambda bundle: open_in_process(bundle, backend))

    command()


if __name__ == "__main__":
    main()
