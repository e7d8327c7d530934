"""The runtime's public face: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtr_runtime import Clip, Model, load
from vtr_runtime.backends import onnx_runtime
from vtr_runtime.backends.environment import ORT_PACKAGES
from vtr_runtime.errors import BackendError, MediaError, TextError, UsageError

SENTENCES = ["a dog", "", "a very long story about a walk " * 30, "a red circle moves", "犬", "x"]


def test_embeddings_have_unit_length(small_model: Model) -> None:
    out = small_model.encode_texts(SENTENCES)
    assert out.dtype == np.float32
    assert out.shape == (len(SENTENCES), 64)
    assert np.linalg.norm(out, axis=1) == pytest.approx(np.ones(len(SENTENCES)), abs=1e-6)


def test_a_sentence_embeds_alike_alone_and_in_any_company(small_model: Model) -> None:
    ids = small_model.tokenize(SENTENCES)
    together = small_model.encode_ids(ids)  # encode_texts would remember the sentences
    alone = np.concatenate([small_model.encode_ids(row[None]) for row in ids])
    reverse = small_model.encode_ids(ids[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together - reverse).max() < 1e-6


def test_padding_to_77_changes_nothing(small_model: Model) -> None:
    ids = small_model.tokenize(SENTENCES)
    assert ids.shape == (len(SENTENCES), 77)
    padded = small_model.backend.text(ids)["embedding"]
    assert np.abs(padded - small_model.encode_ids(ids)).max() < 1e-6


def test_tokens_after_the_end_change_nothing(small_model: Model) -> None:
    ids = small_model.tokenize(["a dog runs"])
    changed = ids.copy()
    changed[0, 5:] = 1234
    changed[0, 40] = small_model.manifest.text.end_id
    same = small_model.backend.text(changed)["embedding"]
    assert np.abs(same - small_model.backend.text(ids)["embedding"]).max() < 1e-6


def test_nothing_in_gives_nothing_out(small_model: Model) -> None:
    assert small_model.encode_texts([]).shape == (0, 64)
    assert small_model.encode_videos([]).shape == (0, 64)


def test_frames_of_any_size_equal_the_file_itself(small_model: Model, good_clips: list[Path]) -> None:
    """Full-size frames as a service has them, against the file that they came from."""
    from vtr_runtime.video import read_rgb

    path = good_clips[0]
    rgb = np.stack(read_rgb(path, small_model.manifest.frames).images)[None]
    assert np.abs(small_model.encode_frames(rgb) - small_model.encode_videos([path])).max() < 1e-6


def test_masked_frames_change_nothing(small_model: Model) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, 40, 50, 3), dtype=np.uint8)
    mask = np.array([[True] * 5 + [False] * 7, [True, False] * 6])
    garbage = np.where(mask[:, :, None, None, None], frames, 255 - frames)
    assert np.array_equal(small_model.encode_frames(frames, mask), small_model.encode_frames(garbage, mask))
    short = small_model.encode_frames(frames[:1, :5])
    assert np.abs(short - small_model.encode_frames(frames[:1], mask[:1])).max() < 1e-6


def test_the_order_of_frames_matters(small_model: Model) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 12, 32, 32, 3), dtype=np.uint8)
    assert np.abs(small_model.encode_frames(frames) - small_model.encode_frames(frames[:, ::-1])).max() > 0.01


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 12, 32, 32), np.uint8, "must be uint8"),
        ((1, 12, 32, 32, 3), np.float32, "must be uint8"),
        ((1, 13, 32, 32, 3), np.uint8, "takes 1 to 12"),
        ((1, 0, 32, 32, 3), np.uint8, "takes 1 to 12"),
    ],
)
def test_frames_of_a_wrong_shape_are_refused(
    small_model: Model, shape: tuple[int, ...], dtype: type, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        small_model.encode_frames(np.zeros(shape, dtype))


def test_bad_masks_are_refused(small_model: Model) -> None:
    frames = np.zeros((1, 12, 32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match="mask must be bool"):
        small_model.encode_frames(frames, np.ones((1, 12), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without any valid frame"):
        small_model.encode_frames(frames, np.zeros((1, 12), bool))


def test_ids_that_the_model_does_not_know_are_refused(small_model: Model) -> None:
    ids = small_model.tokenize(["a dog"])
    ids[0, 1] = small_model.manifest.text.vocab_size
    with pytest.raises(TextError):
        small_model.encode_ids(ids)


def test_a_bad_file_is_named_and_the_others_are_done(
    small_model: Model, good_clips: list[Path], tmp_path: Path
) -> None:
    good = good_clips
    text = tmp_path / "no video.mp4"
    text.write_text("this is text")
    done = list(
        small_model.embed_clips(Clip(path) for path in [good[0], text, good[1], tmp_path / "none.mp4", good[2]])
    )
    assert [item.status == "error" for item in done] == [False, True, False, True, False]
    assert "no video.mp4" in done[1].message
    assert "none.mp4" in done[3].message
    rows = np.stack([item.embedding for item in done if item.embedding is not None])
    assert np.abs(rows - small_model.encode_videos(good)).max() < 1e-6
    with pytest.raises(MediaError, match=r"2 of 5 videos cannot be read; the first: .*no video\.mp4"):
        small_model.encode_videos([good[0], text, good[1], tmp_path / "none.mp4", good[2]])


def test_a_window_is_the_clip_cut_to_it(small_model: Model, good_clips: list[Path]) -> None:
    path = good_clips[1]
    _, mask, times = small_model.read_frames(path, start=float(times_of(small_model, path)[4]))
    assert mask.any()
    assert times[0] >= times_of(small_model, path)[4] - 0.2
    [item] = small_model.embed_clips([Clip(path, start=float(times[0]))])
    assert item.status == "ok"


def times_of(model: Model, path: Path) -> np.ndarray:
    return model.read_frames(path)[2]


def test_threads_share_a_model(small_model: Model) -> None:
    want = small_model.encode_texts(SENTENCES)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(small_model.encode_texts, [SENTENCES] * 16))
    assert all(np.array_equal(want, out) for out in found)


def test_frames_are_what_pillow_makes_of_the_picture(small_model: Model, tmp_path: Path) -> None:
    """A still of one colour stays that colour through decoding, resizing and cropping."""
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "still.png")
    pixels, mask, _ = small_model.read_frames(tmp_path / "still.png")
    assert mask.tolist() == [True] + [False] * 11
    assert (pixels[0] == (200, 30, 60)).all()


def test_an_unknown_backend_is_refused(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"no backend 'cuda'; choose from: auto, onnx-cpu"):
        load(small_bundle, backend="cuda")


def test_the_choice_of_auto_is_said(small_model: Model) -> None:
    assert small_model.backend.name == "onnx-cpu"
    assert "auto" in small_model.backend_choice


def test_two_onnxruntime_packages_are_refused(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "installed_packages", lambda: list(ORT_PACKAGES))
    with pytest.raises(BackendError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        load(small_bundle)


def test_no_engine_says_what_to_install(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install 'vtr-runtime\[cpu\]'"):
        load(small_bundle)


def test_a_graph_that_the_engine_cannot_load_is_named(bundle_copy: Path) -> None:
    from vtr_runtime.backends.onnx_runtime import OnnxRuntimeBackend
    from vtr_runtime.bundle import open_bundle

    opened = open_bundle(bundle_copy)
    (bundle_copy / "video.onnx").write_bytes(b"\x00" * 100)
    with pytest.raises(BackendError, match=r"cannot load .*video\.onnx"):
        OnnxRuntimeBackend(opened)


def test_a_name_that_is_no_utf8_is_embedded(small_model: Model, good_clips: list[Path], tmp_path: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp4"))
    odd.write_bytes(good_clips[0].read_bytes())
    assert small_model.encode_videos([odd]).shape == (1, 64)
