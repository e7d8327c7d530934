from __future__ import annotations

import numpy as np
import pytest
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from vtr_runtime import pixels
from vtr_runtime.errors import MediaError, UsageError
from vtr_runtime.pixels import resize_crop

SIZES = [
    (224, 224), (448, 224), (224, 448), (225, 224), (224, 225), (223, 224), (224, 223), (240, 320), (320, 240),
    (1080, 1920), (1920, 1080), (428, 640), (121, 161), (273, 314), (1, 1), (1, 37), (37, 1), (3, 500), (500, 3),
    (2, 3), (719, 1283), (335, 337),
]  # fmt: skip


def reference(size: int) -> Compose:
    """open_clip's `preprocess_val` up to the conversion to a tensor."""
    steps = image_transform(size, is_train=False, resize_mode="shortest", interpolation="bicubic").transforms
    kept = [step for step in steps if not isinstance(step, ToTensor | Normalize)]
    assert len(kept) == len(steps) - 2
    return Compose(kept)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10007 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [224, 97])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_open_clip_byte_for_byte(height: int, width: int, size: int) -> None:
    rgb = noise(height, width)
    expected = np.asarray(reference(size)(Image.fromarray(rgb)))
    actual = resize_crop(rgb, size)
    assert actual.shape == (size, size, 3)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected)


def test_takes_a_view_that_is_not_contiguous() -> None:
    rgb = noise(60, 80)
    np.testing.assert_array_equal(resize_crop(rgb[::-1, ::2], 32), resize_crop(rgb[::-1, ::2].copy(), 32))


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4, 3), "f4"), np.zeros((4, 4), "u1"), np.zeros((4, 4, 4), "u1"), np.zeros((0, 4, 3), "u1")],
    ids=["float", "gray", "rgba", "empty"],
)
def test_refuses_what_is_not_a_frame(frame: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"give uint8 \[height, width, 3\]"):
        resize_crop(frame, 224)


def test_refuses_a_frame_that_would_need_gigabytes() -> None:
    with pytest.raises(MediaError, match="16384 x 1 pixels is too narrow to resize to 224"):
        resize_crop(np.zeros((1, 16384, 3), np.uint8), 224)


def test_the_limit_is_on_the_resized_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_RESIZED_PIXELS", 32 * 64)
    assert resize_crop(np.zeros((10, 20, 3), np.uint8), 32).shape == (32, 32, 3)
    with pytest.raises(MediaError, match="21 x 10 pixels"):
        resize_crop(np.zeros((10, 21, 3), np.uint8), 32)
