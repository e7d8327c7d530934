"""Decoding in the threads that ask for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from ..errors import MediaError
from ..manifest import FrameSpec
from ..media.nvdec import Nvdec
from ..sampling import Windows
from ..video import Frames, VideoFile
from .base import Cut

# The packets of so many files are remembered: the windows of one file are asked for one after another.
FILES_REMEMBERED = 4


class DecoderHere:
    def __init__(self, *, nvdec: Nvdec | None = None) -> None:
        """With `nvdec` on the GPU, as far as it takes the files; the rest on the CPU."""
        self._nvdec = nvdec
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()
        self._lock = threading.Lock()

    def windows(self, path: Path, windows: Windows) -> list[Cut]:
        file = VideoFile(path, nvdec=self._nvdec)
        with self._lock:
            self._files[path] = file
            while len(self._files) > FILES_REMEMBERED:
                self._files.popitem(last=False)
        return list(file.windows(windows))

    def read(self, path: Path, spec: FrameSpec, cuts: Sequence[Cut]) -> list[Frames | MediaError]:
        with self._lock:
            file = self._files.get(path)
        try:
            return (file or VideoFile(path, nvdec=self._nvdec)).read_cuts(spec, cuts)
        except MediaError as error:
            return [error] * len(cuts)

    def close(self) -> None:
        self._files.clear()
