"""A host of the conformance suite that goes wrong as it is told: scripted_host.py FAULT. The standard library alone.

What it gives where it does not go wrong are zeros of the right type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FAULT, STARTS = sys.argv[1], Path(sys.argv[2])
SIZES = {"I32": 4, "F32": 4}


def write_zeros(path: str, name: str, dtype: str, shape: list[int]) -> None:
    count = SIZES[dtype]
    for size in shape:
        count *= size
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, count]}}).encode()
    header += b" " * (-len(header) % 8)
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + bytes(count))


def rows_of(path: str) -> int:
    """Of the first tensor in a safetensors file."""
    data = Path(path).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return int(next(iter(header.values()))["shape"][0])


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if FAULT == "abort":
        print("a line of the log", file=sys.stderr, flush=True)
        os.abort()
    elif FAULT == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif FAULT == "exit":
        sys.exit(7)
    elif FAULT == "hang":
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        STARTS.with_name("started").write_text(str(started.pid))
        time.sleep(600)
    elif FAULT == "deaf":
        os.close(1)
        time.sleep(600)
    elif FAULT == "rubbish":
        say("Loading the model...\n")
    elif FAULT == "list":
        say("[1, 2]\n")
    elif FAULT == "half":
        say('{"id": 1, "seco')
        sys.exit(0)
    elif FAULT == "flood":
        say("x" * (8 << 20))
    elif FAULT == "stray":
        return {"id": 99, "seconds": 0.1}
    elif FAULT == "no seconds":
        return {}
    elif FAULT == "text seconds":
        return {"seconds": "0.1"}
    elif FAULT == "negative seconds":
        return {"seconds": -1}
    elif FAULT == "no file":
        return {"seconds": 0.1}
    elif FAULT == "no tensors":
        Path(request["output"]).write_text("zeros")
        return {"seconds": 0.1}
    elif FAULT == "says so":
        return {"error": "the disk is gone"}
    elif FAULT == "other name":
        write_zeros(request["output"], "tokens", "I32", [2, 77])
        return {"seconds": 0.1}
    elif FAULT == "other type":
        write_zeros(request["output"], "ids", "F32", [2, 77])
        return {"seconds": 0.1}
    elif FAULT == "other rank":
        write_zeros(request["output"], "ids", "I32", [154])
        return {"seconds": 0.1}
    elif FAULT == "once" and len(STARTS.read_text()) == 1:
        os.abort()
    elif FAULT == "log flood":
        sys.stderr.write("a line of the log\n" * (8 << 20 >> 4))
    if request["do"] == "run":
        rows = rows_of(request["tensors"]) + (FAULT == "other rows")
        write_zeros(request["output"], "embedding", "F32", [rows, 64])
    else:
        write_zeros(request["output"], "ids", "I32", [2, 77])
    return {"seconds": 0.25}


def hello() -> dict[str, Any]:
    if FAULT == "dies at hello":
        sys.exit("no licence found")
    elif FAULT == "silent":
        time.sleep(600)
    elif FAULT == "cannot start":
        return {"error": "the engine is not there"}
    found = {
        "protocol": 2 if FAULT == "version 2" else 1,
        "name": "scripted",
        "backend": "zeros",
        "precision": "fp8" if FAULT == "fp8" else "fp32",
        "stages": ["ids"],
        "graphs": ["text"],
        "a key of later": True,
    }
    if FAULT == "nameless":
        del found["name"]
    return found


with STARTS.open("a") as starts:
    starts.write("x")
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "bye":
        break
    reply = hello() if request["do"] == "hello" else answer(request)
    say(json.dumps({"id": request["id"], **reply}) + "\n")
