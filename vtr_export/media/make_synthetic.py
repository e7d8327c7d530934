"""Write the golden clips of our own, which hold what the others have not: `python vtr_export/media/make_synthetic.py`.

vtr_alpha.mov: a third of its cells is opaque, a third half transparent, a third wholly so with a colour beneath; alpha
that is dropped, or laid over another background, shows. Its frames stand for one to five units of time and the first
begins late, so sampling by count, and times that are not taken from the first frame, show. After the resize to the
usual sizes (224, 240, 256, 288, 336, 384) what is cropped is an odd number of pixels whose half rounds up.

vtr_full_range.webm: full range in the format yuv420p, where the range is the file's word alone. H.264's decoder gives
yuvj420p, whose name says it again, and which some converters read rightly whatever they are told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
WIDTH, HEIGHT, CELL = 173, 99, 33
UNIT = Fraction(1, 30)
FIRST = 15  # in units: half a second
STANDS = (1, 1, 2, 1, 5, 1, 3)  # units from one frame to the next, over and over


def picture(number: int) -> NDArray[np.uint8]:
    """Cells of one colour each, uint8 [H, W, 4] with straight alpha; the colours move by a cell each frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] // CELL
    place = columns + number
    alpha = np.choose((rows + place) % 3, (255, 128, 0))
    return np.stack([37 * place % 256, 61 * rows % 256, 19 * (rows + place) % 256, alpha], axis=-1).astype(np.uint8)


def write_alpha(path: Path, *, frames: int = 40) -> None:
    """QuickTime Animation: without loss, and the same bytes from every FFmpeg."""
    with av.open(str(path), "w", format="mov", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("qtrle", options={"flags": "+bitexact"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "argb"
        stream.time_base = stream.codec_context.time_base = UNIT
        time = FIRST
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgba").reformat(format="argb")
            frame.pts, frame.time_base = time, UNIT
            time += STANDS[number % len(STANDS)]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def write_full_range(path: Path, *, frames: int = 5) -> None:
    """VP9, whose decoding is defined to the bit; another encoder makes another file of the same kind."""
    with av.open(str(path), "w", format="webm", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libvpx-vp9", rate=30, options={"flags": "+bitexact", "crf": "20", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.color_range = ColorRange.JPEG
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(number)[..., :3]), format="rgb24")
            file.mux(stream.encode(frame.reformat(format="yuv420p", dst_color_range=ColorRange.JPEG)))
        file.mux(stream.encode())


if __name__ == "__main__":
    write_alpha(FOLDER / "vtr_alpha.mov")
    write_full_range(FOLDER / "vtr_full_range.webm")
