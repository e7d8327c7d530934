"""Write vtr_alpha.mov, the golden clip of our own: `python -m vtr_export.media.make_alpha`.

It holds what none of the others has. Every third cell is half transparent or wholly so, with a colour beneath, so alpha
that is dropped, or laid over another background, shows. Its frames stand for one to five units of time and the first
begins late, so sampling by count, and times that are not taken from the first frame, show. And after the resize to the
usual sizes (224, 240, 256, 288, 336, 384) what is cropped is an odd number of pixels whose half rounds up."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CLIP = Path(__file__).parent / "vtr_alpha.mov"
WIDTH, HEIGHT, CELL, FRAMES = 173, 99, 33, 40
UNIT = Fraction(1, 30)
FIRST = 15  # in units: half a second
STANDS = (1, 1, 2, 1, 5, 1, 3)  # units from one frame to the next, over and over


def picture(number: int) -> NDArray[np.uint8]:
    """Cells of one colour each, uint8 [H, W, 4] with straight alpha; the colours move by a cell each frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] // CELL
    place = columns + number
    alpha = np.choose((rows + place) % 3, (255, 128, 0))
    return np.stack([37 * place % 256, 61 * rows % 256, 19 * (rows + place) % 256, alpha], axis=-1).astype(np.uint8)


def main() -> None:
    """QuickTime Animation: without loss, and the same bytes from every FFmpeg."""
    with av.open(str(CLIP), "w", format="mov", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("qtrle", options={"flags": "+bitexact"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "argb"
        stream.time_base = stream.codec_context.time_base = UNIT
        time = FIRST
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgba").reformat(format="argb")
            frame.pts, frame.time_base = time, UNIT
            time += STANDS[number % len(STANDS)]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


if __name__ == "__main__":
    main()
