"""A decoding process: `python -m vtr_runtime.decoding.child`. Reads requests on standard input, answers on standard
output, ends with its input. It never opens what a file refers to, and holds one file's packets at a time."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import IO, Any

from ..clips import FileStamp
from ..errors import MediaError
from ..manifest import FrameSpec
from ..sampling import Windows
from ..video import VideoFile
from .wire import receive_line, send, send_frames


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file, state = None, None
    while (request := receive_line(requests)) is not None:
        path = Path(os.fsdecode(bytes.fromhex(request["path"])))
        try:
            now = path, FileStamp.of(path)
            if file is None or state != now:
                file = None
                file, state = VideoFile(path), now
            _answer(answers, file, request)
        except MediaError as error:
            send(answers, {"error": str(error)})
        except MemoryError:
            send(answers, {"error": f"{path} needs more memory to decode than it is given ({limit >> 20} MiB)"})


def _answer(answers: IO[bytes], file: VideoFile, request: dict[str, Any]) -> None:
    if "windows" in request:
        send(answers, {"windows": file.windows(Windows(*request["windows"]))})
        return
    spec = FrameSpec(count=request["count"], size=request["size"], sampling=request["sampling"])
    send_frames(answers, file.read_cuts(spec, [(start, end) for start, end in request["cuts"]]))


if __name__ == "__main__":
    main()
