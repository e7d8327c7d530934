"""RGB of any size to the S x S square that the video tower sees. The same bytes as open_clip's `preprocess_val`
before normalisation (`resize_mode="shortest"`, bicubic)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import MediaError, UsageError

# The whole frame is resized before the crop, so a very long and narrow one would need gigabytes: 2**26 is 256 MiB.
MAX_RESIZED_PIXELS = 2**26


def resize_crop(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the short side to `size` (bicubic, antialiased), then cut out the middle.

    Args:
        rgb: uint8 [H, W, 3].
        size: S, pixels.

    Returns:
        uint8 [S, S, 3].

    Raises:
        UsageError: not uint8 [H, W, 3] with at least one pixel.
        MediaError: so long and narrow that the resized frame would exceed 2**26 pixels.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise UsageError(f"a frame is {rgb.dtype} {list(rgb.shape)}; give uint8 [height, width, 3]")
    height, width = rgb.shape[:2]
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    if size * new_long > MAX_RESIZED_PIXELS:
        raise MediaError(
            f"a frame of {width} x {height} pixels is too narrow to resize to {size}; crop the video first"
        )
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    resized = Image.fromarray(rgb).resize((new_width, new_height), Image.Resampling.BICUBIC)
    # Python's round: halves go to the even number, as torchvision's CenterCrop does.
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
