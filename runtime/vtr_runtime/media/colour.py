"""From a decoded frame to upright RGB."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ..errors import MediaError
from .container import check_size

Rgb = NDArray[np.uint8]

# These flags give the same bytes in FFmpeg 5.1 and 8, with and without SIMD; the default ones do not.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"

# AVColorSpace and AVColorRange to the names that the scale filter knows; what is not here counts as unspecified.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_RANGES = {1: "limited", 2: "full"}
_ANY_TIME_BASE = Fraction(1, 25)  # a filter source must have one; a single picture needs none

# libswscale aborts the whole process on these.
_FATAL_FORMATS = frozenset({"yaf32be", "yaf32le"})


class RgbConverter:
    """Converts the frames of one clip, in one thread: the scaler is set up once for frames of one kind."""

    def __init__(self) -> None:
        self._kind: tuple[object, ...] = ()
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> Rgb:
        """A decoded frame as uint8 [H, W, 3], as stored (not rotated), alpha over black.

        Matrix and range are the frame's own. Where it names none: BT.709 from 720 rows on, BT.601 below; limited range.

        Raises:
            MediaError: a size or a pixel format that cannot be converted.
        """
        check_size(frame.width, frame.height)
        pixel_format = frame.format
        if pixel_format.name in _FATAL_FORMATS:
            raise MediaError(
                f"pixel format {pixel_format.name} cannot be converted to RGB; encode the video in another one"
            )
        kind = (frame.width, frame.height, pixel_format.name, frame.colorspace, frame.color_range, frame.time_base)
        try:
            if self._graph is None or kind != self._kind:
                self._graph, self._kind = _scaler(frame), kind
            self._graph.vpush(frame)
            image: Rgb = np.asarray(self._graph.vpull().to_ndarray(), np.uint8)
        except av.FFmpegError as error:
            self._graph = None
            raise MediaError(
                f"pixel format {pixel_format.name} cannot be converted to RGB ({error.strerror}); "
                "encode the video in another one"
            ) from error
        return _over_black(image) if image.shape[-1] == 4 else image


def _scaler(frame: VideoFrame) -> Graph:
    pixel_format = frame.format
    options = f"flags={SCALE_FLAGS}"
    if not (pixel_format.is_rgb or pixel_format.has_palette):
        matrix = _MATRICES.get(frame.colorspace, "bt709" if frame.height >= 720 else "smpte170m")
        value_range = _RANGES.get(frame.color_range, "full" if pixel_format.name.startswith("yuvj") else "limited")
        options += f":in_color_matrix={matrix}:in_range={value_range}"
    has_alpha = pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)
    graph = Graph()
    graph.threads = 1
    time_base = frame.time_base or _ANY_TIME_BASE
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=pixel_format, time_base=time_base),
        graph.add("scale", options),
        graph.add("format", "rgba" if has_alpha else "rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _over_black(rgba: Rgb) -> Rgb:
    """round(value * alpha / 255), halves up, in integers."""
    weighted = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)


def turn_upright(rgb: Rgb, matrix: Sequence[int]) -> tuple[Rgb, bool]:
    """Apply a display matrix (nine integers, FFmpeg's order), rounded to a quarter turn with or without a mirror.

    Returns:
        The image, and whether the matrix was just such a turn. A matrix that is no turn at all leaves the image alone.
    """
    a, b, _, c, d, *_ = (int(value) for value in matrix)  # x' = a x + c y, y' = b x + d y
    if a * d == b * c:
        return rgb, False
    if abs(a) + abs(d) >= abs(b) + abs(c):
        exact, mirror_x, mirror_y = b == c == 0, a < 0, d < 0
    else:
        rgb = rgb.transpose(1, 0, 2)
        exact, mirror_x, mirror_y = a == d == 0, c < 0, b < 0
    return np.ascontiguousarray(rgb[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]), exact
