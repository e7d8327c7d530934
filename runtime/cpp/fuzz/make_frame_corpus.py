"""Seeds for frame_fuzzer.cc, one file each.

python runtime/cpp/fuzz/make_frame_corpus.py [FOLDER]"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus" / "frame"


def resize(width: int, height: int, stride: int, size: int, pixels: bytes) -> bytes:
    return struct.pack("<BHHiH", 1, width, height, stride, size) + pixels


def sample(
    num: int, den: int, origin: int, duration: int, count: int, window: tuple[float, ...], cuts: int, ticks: bytes
) -> bytes:
    head = struct.pack("<BqqqqHB", 0, num, den, origin, duration, count, cuts)
    return head + struct.pack(f"<{len(window)}d", *window) + ticks


def wide(*ticks: int) -> bytes:
    return struct.pack(f"<{len(ticks)}q", *ticks)


SEEDS = {
    "square": resize(32, 32, 0, 16, bytes(range(200))),
    "upright": resize(40, 100, 130, 24, b"\xff\0\0\xff"),
    "upright-near": resize(40, 100, 0, 38, b"\x01\x80\xfe"),
    "lying": resize(320, 24, 0, 24, b"\0\xff"),
    "larger": resize(3, 5, 11, 64, b"\0\xff\x80"),
    "one": resize(1, 1, 0, 16, b"abc"),
    "flat": resize(70, 50, 0, 32, b""),
    "too-narrow": resize(65535, 1, 0, 224, b"x"),
    "negative-stride": resize(4, 4, -12, 16, b"x"),
    "short-stride": resize(4, 4, 11, 16, b"x"),
    "nothing": resize(0, 4, 0, 16, b""),
    "thirty": sample(1, 30, 0, 1, 4, (), 4, bytes(range(30))),
    "equal-times": sample(1001, 30000, 3, 0, 3, (), 4, b"\x03\x03\x05\x09\x09\x0a"),
    "window": sample(1, 10, 0, 0, 2, (0.1, 0.5), 7, bytes(range(12))),
    "from": sample(1, 90000, 5, 3003, 4, (0.01,), 1, wide(5, 3008, 6011, 9014, 12017, 15020)),
    "ends-of-64-bits": sample(1, 2**63 - 1, -(2**63), 2**63 - 1, 2, (), 0, wide(-(2**63), 0, 2**63 - 1)),
    "large-unit": sample(2**31 - 1, 1, 0, 2**63 - 1, 2, (), 0, wide(-(2**63), 0, 7, 2**63 - 1)),
    "no-unit": sample(0, 0, 0, 0, 1, (), 0, wide(1)),
    "no-number": sample(1, 1, 0, 0, 1, (float("nan"), float("inf")), 3, wide(1)),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
