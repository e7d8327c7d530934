"""What Python makes of frames and times: expectations for resize_test.cc and sampling_test.cc.

    python runtime/cpp/tests/make_frame_data.py FOLDER

writes FOLDER/frames/: resize.txt (one picture a line: source, width, height, row stride, size, sha256 and FNV-1a of the
result), the real pictures that it names, and sampling.txt (one clip a line)."""

from __future__ import annotations

import hashlib
import math
import random
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import MediaError, UsageError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.pixels import resize_crop
from vtr_runtime.sampling import ClipTimes, Sampling
from vtr_runtime.video import read_rgb

CLIPS = Path(__file__).parents[3] / "tests" / "data" / "videos"
SIZES = (16, 17, 32, 97, 112, 160, 224, 225, 256, 288, 336)
# Width and height; the rest is drawn.
SIDES = (
    (1, 1), (1, 37), (37, 1), (2, 3), (3, 500), (500, 3), (16, 16), (224, 224), (448, 224), (224, 448), (225, 224),
    (223, 224), (224, 223), (320, 240), (240, 320), (640, 427), (428, 640), (161, 121), (335, 337), (719, 1283),
    (1280, 720), (720, 1280), (1920, 1080), (1080, 1920), (1920, 8), (8, 1920), (4000, 20), (65535, 1), (1, 65535),
)  # fmt: skip
CASES = 4000


def noise(seed: int, height: int, stride: int) -> NDArray[np.uint8]:
    """Bytes [height, stride] by splitmix64 of the place, eight bytes a step: the same as noise() in resize_test.cc."""
    count = (height * stride + 7) // 8
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z.astype("<u8").view(np.uint8)[: height * stride].reshape(height, stride)


def extreme(seed: int, height: int, stride: int) -> NDArray[np.uint8]:
    """Black and white only, where sums overshoot most."""
    return np.where(noise(seed, height, stride) < 128, 0, 255).astype(np.uint8)


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def expected(rgb: NDArray[np.uint8], size: int) -> str:
    try:
        done = resize_crop(rgb, size).tobytes()
    except MediaError as error:
        return f"! {error}"
    # FNV goes byte by byte, which is slow here: every seventh, and all of them by sha256.
    return f"{hashlib.sha256(done).hexdigest()} {fnv1a(done[::7]):016x}"


def resize_lines(folder: Path, chosen: random.Random) -> Iterator[str]:
    kinds = {"noise": noise, "extreme": extreme}
    drawn = [(round(math.exp(chosen.uniform(0, 7.2))), round(math.exp(chosen.uniform(0, 7.2)))) for _ in range(120)]
    seed = 0
    for width, height in (*SIDES, *drawn):
        sizes = {224, *chosen.sample(SIZES, 1)}
        for size in sorted(sizes):
            seed += 1
            kind = "extreme" if seed % 5 == 0 else "noise"
            stride = 3 * width + chosen.choice((0, 0, 1, 13, 64))
            rows = kinds[kind](seed, height, stride)
            rgb = rows[:, : 3 * width].reshape(height, width, 3)
            yield f"{kind}:{seed} {width} {height} {stride} {size} {expected(rgb, size)}"
    for clip in sorted(CLIPS.iterdir()):
        try:
            image = read_rgb(clip, FrameSpec(count=1)).images[0]
        except MediaError:
            continue
        height, width = image.shape[:2]
        (folder / f"{clip.stem}.rgb").write_bytes(image.tobytes())
        for size in SIZES:
            yield f"{clip.stem}.rgb {width} {height} {3 * width} {size} {expected(image, size)}"


def ticks_of(chosen: random.Random) -> list[int]:
    count = chosen.choice((1, 2, 3, 5, 12, 13, 30, 90))
    start = chosen.choice((0, 0, 1001, -3003, 10**12, -(2**63), 2**63 - 1 - count * 4000))
    kind = chosen.randrange(4)
    if kind == 0:
        step = chosen.choice((1, 512, 1001, 3003))
        return [start + step * i for i in range(count)]
    if kind == 1:  # steps that vary, some of them none
        times = [start]
        for _ in range(count - 1):
            times.append(times[-1] + chosen.choice((0, 1, 33, 34, 1001, 3990)))
        return times
    if kind == 2:  # anywhere, from one end of 64 bits to the other
        return [chosen.randrange(-(2**63), 2**63) for _ in range(count)]
    return [chosen.randrange(20) for _ in range(count)]


def sampling_line(chosen: random.Random) -> str:
    ticks = ticks_of(chosen)
    chosen.shuffle(ticks)
    num = chosen.choice((1, 1, 1, 1001, 2**31 - 1))
    den = chosen.choice((1, 25, 1000, 24000, 30000, 90000, 1000000, 2**31 - 1, 2**61 - 1, 2**63 - 1))
    duration = chosen.choice((0, 0, 1, 1001, 2**40, 2**63 - 1))
    origin = min(ticks) if chosen.random() < 0.8 else 0
    count = chosen.choice((1, 2, 3, 4, 8, 12, 16, 64))
    sampling: Sampling = chosen.choice(get_args(Sampling))
    unit = Fraction(num, den)
    clip = ClipTimes([(tick - origin) * unit for tick in ticks], duration * unit if duration else None)
    times = sorted({(tick - origin) * unit for tick in ticks})

    def place() -> float | None:
        kind = chosen.randrange(8)
        if kind < 3:
            return None
        if kind == 3:
            return chosen.choice((math.nan, math.inf, -1.0, 0.0, 1e-5, 1e22))
        near = float(chosen.choice(times))
        if kind == 4:
            return chosen.uniform(0, max(0.0, float(times[-1])))
        return near if kind < 7 else math.nextafter(near, chosen.choice((-math.inf, math.inf)))

    start, end = place(), place()
    try:
        plan = clip.sample(count, start, end, sampling=sampling)
        found = " ".join(map(str, plan.indices))
    except UsageError as error:
        found = f"! {error}"
    cuts = ("-" if cut is None else cut.hex() for cut in (start, end))
    words = [num, den, origin, duration, count, *cuts, sampling]
    seconds = " ".join(float(time).hex() for time in times)
    exact = " ".join(f"{time.numerator}/{time.denominator}" for time in times)
    return f"{' '.join(map(str, words))}|{' '.join(map(str, ticks))}|{found}|{seconds}|{exact}|{float(clip.end).hex()}"


def main(folder: Path) -> None:
    frames = folder / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    lines = list(resize_lines(frames, random.Random(0)))
    (frames / "resize.txt").write_text("\n".join(lines) + "\n")
    chosen = random.Random(1)
    (frames / "sampling.txt").write_text("".join(sampling_line(chosen) + "\n" for _ in range(CASES)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
