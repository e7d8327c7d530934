"""Chunked batches: the gradient of one plain graph over the whole batch, and a share of its memory."""

import weakref

import numpy as np
import pytest
import torch

from vtr_runtime.errors import ConfigError
from vtr_runtime.parts_of_speech import HantaTagger
from vtr_training.batch_features import BatchInput, encode_batch, encode_part
from vtr_training.data.batches import Batch
from vtr_training.data.split import load_split
from vtr_training.draws import OBJECTIVE, own_draws
from vtr_training.embed import make_tokenizer
from vtr_training.freeze import set_training
from vtr_training.gradcache import parts_of_rows, refuse_batch_statistics
from vtr_training.loop import build_model, fit
from vtr_training.objective import Objective, gap_loss, total
from vtr_training.recipe import Recipe
from vtr_training.step import add_gradients, train_step

CPU = torch.device("cpu")
TOKEN_WISE = {"rerank": {"kind": "token-wise"}}
X_POOL = {"rerank": {"kind": "x-pool", "dropout": 0.3}}


@pytest.fixture(scope="module")
def vit(settings):
    """A recipe of a small ViT: no batch statistics."""
    backbone = {
        **settings["model"]["backbone"],
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "patch_size": 8, "head_width": 16},
    }
    return {**settings, "model": {**settings["model"], "backbone": backbone}, "batches": {"size": 8}}


@pytest.fixture(scope="module")
def make(vit, demo, tmp_path_factory):
    """(recipe, model in float64, objective, split, batch) with other settings."""
    cache = tmp_path_factory.mktemp("cache")

    def made(*, model=None, loss=None, freeze=(), chunk=None, size=8, dtype=torch.float64):
        recipe = Recipe.model_validate(
            {
                **vit,
                "model": {**vit["model"], **(model or {})},
                "loss": loss or {},
                "optim": {**vit["optim"], "freeze": freeze},
                "batches": {"size": size, "chunk": chunk},
                "validation": {"top_k": 3 if (model or {}).get("rerank") else None},
            }
        )
        torch.manual_seed(0)
        built = build_model(recipe.model)
        torch.manual_seed(1)
        for value in built.parameters():  # what is zero at first would hide a gradient
            if value.ndim and not value.any():
                torch.nn.init.normal_(value, std=0.1)
        set_training(built, recipe.optim.freeze)
        split = load_split(
            demo, "train", built.config.frames, make_tokenizer(built.config), cache=cache, tagger=HantaTagger()
        )
        objective = Objective(recipe.loss, built.config).to(dtype)
        batch = Batch(np.arange(size), np.arange(size) % 2)
        return recipe, built.to(dtype), objective, split, batch

    return made


def gradients(model, objective):
    named = [*model.named_parameters(), *objective.named_parameters()]
    return {name: value.grad for name, value in named}


def assert_close(found, expected, *, limit):
    assert found.keys() == expected.keys()
    assert any(value is not None and value.any() for value in expected.values())
    for name, value in expected.items():
        if value is None or not value.any():
            assert found[name] is None or not found[name].any(), name
        else:
            assert (found[name] - value).abs().max() <= limit * max(1.0, value.abs().max()), name


CASES = {
    "cross-entropy": ({}, {}),
    "negnce": ({}, {"contrastive": "negnce", "negnce": {"margin": 0.1}}),
    "bsl": ({}, {"bsl": {"weight": 0.3, "teacher": "live", "pairing": "averaged", "direction": "reversed"}}),
    "tpm": ({}, {"tpm": {"weight": 1.0}}),
    "tpm as released": ({}, {"tpm": {"weight": 1.0, "release": True}}),
    "token-wise": (TOKEN_WISE, {"rerank": "negnce", "negnce": {"hard_from": "rerank"}}),
    "x-pool with dropout": (X_POOL, {"bsl": {"weight": 0.3}}),
}


def plain_gradients(made):
    """One graph over the whole batch, nothing of the step's own code: the reference."""
    recipe, model, objective, split, batch = made
    features = encode_batch(model, split, batch, recipe)
    with own_draws(recipe.seed, 0, OBJECTIVE, CPU):
        loss = total(objective(model, features))
    loss.backward()
    return gradients(model, objective), loss.detach()


@pytest.mark.parametrize("chunk", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_whole_batch(make, case, chunk):
    model, loss = CASES[case]
    expected, value = plain_gradients(make(model=model, loss=loss))
    recipe, built, objective, split, batch = make(model=model, loss=loss, chunk=chunk)
    terms = add_gradients(built, objective, split, batch, recipe)
    assert_close(gradients(built, objective), expected, limit=1e-10)
    torch.testing.assert_close(total(terms).detach(), value, rtol=1e-12, atol=1e-12)


def test_in_single_precision_too(make):
    model, loss = CASES["token-wise"]
    expected, _ = plain_gradients(make(model=model, loss=loss, dtype=torch.float32))
    recipe, built, objective, split, batch = make(model=model, loss=loss, chunk=2, dtype=torch.float32)
    add_gradients(built, objective, split, batch, recipe)
    assert_close(gradients(built, objective), expected, limit=1e-6)


@pytest.mark.parametrize("frozen", [("image",), ("image", "text"), ("image", "text", "temporal", "alignment")])
def test_with_frozen_parts(make, frozen):
    rerank = {"kind": "token-wise", "interaction": "wti"}
    made = {"model": {"rerank": rerank}, "loss": {"tpm": {"weight": 1.0}}, "freeze": frozen}
    expected, _ = plain_gradients(make(**made))
    recipe, built, objective, split, batch = make(**made, chunk=3)
    add_gradients(built, objective, split, batch, recipe)
    assert_close(gradients(built, objective), expected, limit=1e-10)


def test_both_passes_meet_the_same_noise(make):
    """DITS's noise is drawn for each part; the reference is one graph through the same draws."""
    model = {"alignment": {"kind": "dits", "steps": 3, "blocks": 1, "heads": 1, "noise": "sqrt-beta"}}
    recipe, built, objective, split, batch = make(model=model)
    given = BatchInput.of(built, split, batch)
    parts = []
    for start in (0, 3, 6):
        with own_draws(recipe.seed, 5, 1 + start, CPU):
            parts.append(encode_part(built, split, given, slice(start, min(start + 3, 8)), recipe))
    whole = type(parts[0])(*(torch.cat(values) for values in zip(*parts, strict=True)))
    total(objective(built, given.joined(whole))).backward()
    expected = gradients(built, objective)

    recipe, built, objective, split, batch = make(model=model, chunk=3)
    add_gradients(built, objective, split, batch, recipe, step=5)
    assert_close(gradients(built, objective), expected, limit=1e-10)
    before = gradients(built, objective)
    built.zero_grad(set_to_none=True)
    add_gradients(built, objective, split, batch, recipe, step=6)
    name = "text.alignment.network.latent.weight"
    assert not torch.allclose(gradients(built, objective)[name], before[name])  # another step, other noise


def test_pretraining_of_the_gap(make):
    model = {"alignment": {"kind": "diffusion", "steps": 4, "blocks": 1, "heads": 1}}
    made = make(model=model, loss={"gap": {"until": 0.5}})
    recipe, built, objective, split, batch = made
    built.eval()
    with torch.no_grad():
        features = encode_batch(built, split, batch, recipe)
    built.train()
    with own_draws(recipe.seed, 0, OBJECTIVE, CPU):
        total(gap_loss(built, features, "l2")).backward()
    expected = gradients(built, objective)
    recipe, built, objective, split, batch = make(model=model, loss={"gap": {"until": 0.5}}, chunk=3)
    add_gradients(built, objective, split, batch, recipe, pretraining=True)
    assert_close(gradients(built, objective), expected, limit=1e-10)


class Kept:
    """Bytes that autograd holds, now and at most."""

    def __init__(self):
        self.now = self.most = 0
        self._held = set()

    def pack(self, value):
        storage = value.untyped_storage()
        if isinstance(value, torch.nn.Parameter) or storage.data_ptr() in self._held:
            return value
        self._held.add(storage.data_ptr())
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        handle = _Handle(value)
        weakref.finalize(handle, self._free, storage.data_ptr(), storage.nbytes())
        return handle

    def _free(self, place, size):
        self._held.discard(place)
        self.now -= size

    @staticmethod
    def unpack(handle):
        return handle.value if isinstance(handle, _Handle) else handle


class _Handle:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(("chunk", "share"), [(8, 1 / 4), (4, 1 / 8)])
def test_what_is_kept_for_the_way_back_is_that_of_one_chunk(make, chunk, share):
    most = []
    for size in (None, chunk):
        recipe, built, objective, split, batch = make(chunk=size, size=32, dtype=torch.float32)
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            add_gradients(built, objective, split, batch, recipe)
        most.append(kept.most)
    assert share * 0.9 < most[1] / most[0] < share * 1.15  # what the loss keeps is no less


def test_an_update_is_the_same(make):
    weights = []
    for chunk in (None, 2):
        recipe, built, objective, split, batch = make(chunk=chunk, loss={"tpm": {"weight": 1.0}})
        optimizer = torch.optim.AdamW(
            [{"params": [*built.parameters(), *objective.parameters()], "lr": 1e-3}], eps=1e-3
        )
        values = train_step(built, objective, optimizer, split, batch, recipe)
        weights.append((values, built.state_dict()))
    assert weights[0][0] == pytest.approx(weights[1][0], rel=1e-10)
    for name, value in weights[0][1].items():
        torch.testing.assert_close(weights[1][1][name], value, rtol=1e-9, atol=1e-9)


def test_parts_of_rows():
    assert parts_of_rows(slice(0, 7), 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert parts_of_rows(slice(4, 8), 9) == [slice(4, 8)]
    assert parts_of_rows(slice(4, 8), None) == [slice(4, 8)]


def test_batch_statistics_are_refused(settings, tmp_path):
    """A ResNet in training normalises by its batch; frozen it does not."""
    chunked = {**settings, "batches": {"size": 8, "chunk": 4}}
    with pytest.raises(ConfigError, match=r'batches\.chunk is set, and the image tower .* optim\.freeze=\["image"\]'):
        fit(Recipe.model_validate(chunked), tmp_path / "run")
    frozen = Recipe.model_validate({**chunked, "steps": 2, "optim": {**settings["optim"], "freeze": ("image",)}})
    assert fit(frozen, tmp_path / "run").steps == 2
    model = build_model(frozen.model)
    whole = Recipe.model_validate({**settings, "batches": {"size": 8, "chunk": 8}})
    refuse_batch_statistics(model.train(), whole)
    with pytest.raises(ConfigError, match="2 processes share a batch, and"):
        refuse_batch_statistics(model, whole, ranks=2)
