"""What a frozen image tower makes of a split's frames: computed once, kept beside the decoded frames.

Head-only training then costs no image tower at all. The file's name is a fingerprint of the frames and of the tower's
weights, so a cache is never stale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from vtr_export.model.checkpoint import weights_sha256
from vtr_export.model.video_tower import VideoTower
from vtr_runtime.console import progress
from vtr_runtime.errors import StorageError
from vtr_runtime.manifest import fingerprint
from vtr_runtime.publish import staged_file

from .frame_cache import CachedFrames

FEATURE_VERSION = 1  # raise when features are computed in another way


def cached_features(tower: VideoTower, frames: CachedFrames, *, batch: int) -> NDArray[np.float32]:
    """Features float32 [N, T, D] of the image tower in evaluation mode, memory-mapped; masked frames' too."""
    key = fingerprint([FEATURE_VERSION, frames.place.name, weights_sha256(tower.backbone.state_dict())])[:24]
    path = frames.place.with_name(f"features-{key}.npy")
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # frames in shards have no cache of their own
            with staged_file(path) as staged, staged.open("wb") as file:
                _write(file.name, tower, frames, batch)
        except OSError as error:
            raise StorageError(f"features cannot be kept in {path.parent} ({error}); set data.cache") from error
    found: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return found


def _write(name: str, tower: VideoTower, frames: CachedFrames, batch: int) -> None:
    count, times = frames.mask.shape
    out = np.lib.format.open_memmap(name, mode="w+", dtype=np.float32, shape=(count, times, tower.width))
    was_training = tower.backbone.training
    tower.backbone.eval()
    with torch.inference_mode(), progress("image features", count) as bar:
        for rows, pixels in _batches(frames, batch):
            features = tower.encode_frames(torch.from_numpy(pixels).to(tower.mean.device))
            out[rows] = features.float().cpu().numpy()
            bar.advance(len(pixels))
    tower.backbone.train(was_training)
    out.flush()


def _batches(frames: CachedFrames, size: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    for start in range(0, len(frames.mask), size):
        rows = slice(start, min(start + size, len(frames.mask)))
        yield rows, np.array(frames.pixels[rows])
