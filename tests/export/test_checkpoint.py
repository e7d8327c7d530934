"""Checkpoints: what is written comes back, and what is damaged, foreign or hostile is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vtr_export.model import (
    AlignmentConfig,
    RetrievalModel,
    TemporalConfig,
    from_open_clip,
    load_checkpoint,
    redraw_zero_parameters,
    save_checkpoint,
    weights_sha256,
)
from vtr_runtime.errors import CheckpointError, OutputExistsError, StorageError

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
RESNET: dict[str, Any] = {
    **TINY,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 2, "head_width": 32},
}


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def build(source: dict[str, Any] = TINY) -> RetrievalModel:
    torch.manual_seed(0)
    model = from_open_clip(
        source,
        pretrained=None,
        temporal=TemporalConfig(kind="mstdt", scales=(2,)),
        alignment=AlignmentConfig(kind="dits", steps=2, blocks=1),
        frames=3,
    )
    redraw_zero_parameters(model, seed=0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(
        path, build(), training={"epoch": 3, "optimizer": {"step": torch.tensor(7)}, "seeds": [1, 2.5, None]}
    )
    return path


def rewritten(saved: Path, tmp_path: Path, **changes: Any) -> Path:
    content = torch.load(saved, weights_only=True)
    content.update(changes)
    path = tmp_path / "changed.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("source", [TINY, RESNET], ids=["vit", "resnet"])
@torch.no_grad()
def test_a_checkpoint_comes_back(tmp_path: Path, source: dict[str, Any]) -> None:
    model = build(source).eval()
    digest = save_checkpoint(tmp_path / "best.pt", model, training={"epoch": 3})
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert loaded.config == model.config
    assert loaded.training == {"epoch": 3}
    assert loaded.weights_sha256 == digest == weights_sha256(model.state_dict())
    assert not loaded.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    frames, mask = torch.zeros(1, 3, 32, 32, 3, dtype=torch.uint8), torch.ones(1, 3, dtype=torch.bool)
    ids = torch.tensor([[49406, 320, 49407]], dtype=torch.int32)
    for ours, theirs in zip(loaded.model(frames, mask, ids), model(frames, mask, ids), strict=True):
        assert torch.equal(ours, theirs)


def test_training_state_comes_back(saved: Path) -> None:
    training = load_checkpoint(saved).training
    assert training == {"epoch": 3, "optimizer": {"step": torch.tensor(7)}, "seeds": [1, 2.5, None]}


def test_a_checkpoint_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    save_checkpoint(path, build())
    assert names_in(tmp_path) == ["last.pt"]
    assert load_checkpoint(path).training == {}


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"lr": np.float64(0.1)}, "training.lr is a float64"),
        ({"paths": [Path("x")]}, r"training.paths\[0\] is a PosixPath"),
        ({(1, Path("x")): 1}, r"a key of training\[1\] is a PosixPath"),
    ],
)
def test_what_could_not_be_loaded_safely_is_not_saved(tmp_path: Path, training: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"{words}, which a safe checkpoint cannot hold"):
        save_checkpoint(tmp_path / "best.pt", build(), training=training)
    assert names_in(tmp_path) == []


def test_no_folder_and_no_room_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputExistsError, match="is not a folder"):
        save_checkpoint(tmp_path / "absent" / "best.pt", build())
    real = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return real(Path("/dev/full") if "w" in mode else self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="no room to write"):
        save_checkpoint(tmp_path / "best.pt", build())
    assert names_in(tmp_path) == []


class Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.proof),))


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, way: str) -> None:
    path, proof = tmp_path / "evil.pt", tmp_path / "proof"
    content = {"format": "vtr-checkpoint", "schema": 1, "training": Bomb(proof)}
    if way == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="holds code beside its weights, and was not run"):
        load_checkpoint(path)
    assert not proof.exists()
    if way == "torch":
        torch.load(path, weights_only=False)  # the bomb is real
        assert proof.exists()


def test_a_missing_or_unreadable_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent.pt does not exist"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(saved: Path, tmp_path: Path, kept: float) -> None:
    whole = saved.read_bytes()
    path = tmp_path / "short.pt"
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"short.pt is (damaged|no checkpoint)") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(saved: Path, tmp_path: Path) -> None:
    whole = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    whole[largest.header_offset + largest.file_size // 2] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04", b"\x80\x04N.", pickle.dumps([1, 2])])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other.pt is (damaged or )?no"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"format": "other"}, torch.ones(2)])
def test_anothers_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "theirs.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this project"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "has schema 2, newer than 1; upgrade vtr-export"),
        ({"schema": "x"}, "has schema x"),
        ({"weights": None}, "holds no weights"),
        ({"weights": {"a": 1}}, "holds no weights"),
        ({"config": None}, "is damaged: the model configuration cannot be used"),
        ({"config": {"backbone": 3}}, "is damaged: the model configuration cannot be used"),
        ({"weights": {}}, "does not fit its own configuration: .* is missing"),
        ({"weights_sha256": "0"}, "its weights are not those that were saved"),
    ],
)
def test_contents_that_make_no_sense_are_refused(saved: Path, tmp_path: Path, changes: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(rewritten(saved, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    weights = torch.load(saved, weights_only=True)["weights"]
    weights["text.backbone.text_projection"] = torch.ones(32, 31)
    with pytest.raises(CheckpointError, match=r"text_projection has shape \[32, 31\] instead of \[32, 32\]"):
        load_checkpoint(rewritten(saved, tmp_path, weights=weights))
    weights["text.backbone.text_projection"] = torch.ones(32, 32)
    weights["surprise"] = torch.ones(1)
    with pytest.raises(CheckpointError, match="surprise is unexpected"):
        load_checkpoint(rewritten(saved, tmp_path, weights=weights))


def test_the_hash_is_that_of_names_shapes_and_bytes() -> None:
    weights = {"b": torch.tensor(3, dtype=torch.int64), "a": torch.arange(6.0).reshape(3, 2).T}
    digest = hashlib.sha256()
    digest.update(json.dumps(["a", "torch.float32", [2, 3]]).encode())
    digest.update(np.array([[0, 2, 4], [1, 3, 5]], dtype="<f4").tobytes())
    digest.update(json.dumps(["b", "torch.int64", []]).encode())
    digest.update(np.array(3, dtype="<i8").tobytes())
    assert weights_sha256(weights) == digest.hexdigest()
    assert weights_sha256({"x": torch.ones(2, dtype=torch.bfloat16)}) != weights_sha256({"x": torch.ones(2)})
    assert weights_sha256({"x": torch.ones(2, 1)}) != weights_sha256({"x": torch.ones(1, 2)})
