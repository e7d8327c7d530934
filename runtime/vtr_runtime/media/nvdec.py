"""The second pass on NVIDIA's video decoder (NVDEC), by FFmpeg's hardware acceleration, which PyAV's wheels hold.

The first pass, the choice of packets and the way to RGB stay those of the CPU. Only streams that `select` knows are
given to it: their standards prescribe every bit of a picture, so pictures are the same wherever they are decoded. The
way to RGB makes the same bytes of NVDEC's formats (NV12, P010) as of the CPU's (tests/runtime/test_nvdec.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import av
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame

from ..errors import MediaError, UnavailableError
from .container import open_video
from .decode import decode_selected, select
from .timeline import Timeline

Result = TypeVar("Result")


class Nvdec:
    """The decoder of the first visible GPU, for any number of threads. `decoded` counts what it did, `left` what it was
    asked for and left to the CPU.

    What a standard prescribes holds for whole streams. For a damaged one the CPU's decoder says so and fills in, and
    this one may say nothing and fill in otherwise."""

    def __init__(self) -> None:
        """UnavailableError where there is none."""
        self.decoded = self.left = 0
        self._lock = threading.Lock()
        # The context that the engine has too, in place of one of its own for every file.
        self._acceleration = HWAccel("cuda", options={"primary_ctx": "1"}, allow_software_fallback=False)
        try:
            self._acceleration.create(av.Codec("h264", "r"))
        except (av.FFmpegError, NotImplementedError) as error:
            raise UnavailableError(
                f"NVDEC cannot be used here ({error}); it needs an NVIDIA GPU and its driver with the video libraries "
                "(in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility,video), else choose the decoder cpu"
            ) from error

    def __str__(self) -> str:
        return f"nvdec decoded {self.decoded} clips or groups of windows, the CPU {self.left} that it did not take"

    def decode(
        self, path: Path, timeline: Timeline, wanted: Sequence[int], finish: Callable[[VideoFrame], Result]
    ) -> dict[int, Result] | None:
        """The pictures with the sorted keys `wanted`, each finished; None for what it does not take: the CPU's then."""
        selection = select(timeline, wanted, least_saving=None)
        found: dict[int, Result] | None = None
        if selection is not None:
            try:
                with open_video(path, self._acceleration) as (container, stream):
                    found = decode_selected(container, stream, timeline, selection, wanted, finish)
            except (MediaError, av.FFmpegError):
                pass  # a format or a size that it has not, or a GPU that is full
        with self._lock:
            self.decoded += found is not None
            self.left += found is None
        return found
