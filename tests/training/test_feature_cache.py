"""Features of a frozen image tower: computed once, the same as on the fly, never stale."""

import numpy as np
import pytest
import torch

from vtr_training.data import feature_cache
from vtr_training.data.feature_cache import cached_features
from vtr_training.data.split import load_split
from vtr_training.embed import make_tokenizer
from vtr_training.loop import build_model
from vtr_training.recipe import ModelSettings


@pytest.fixture
def model(settings):
    torch.manual_seed(0)
    return build_model(ModelSettings.model_validate(settings["model"]))


@pytest.fixture
def split(model, demo, tmp_path):
    return load_split(demo, "val", model.config.frames, make_tokenizer(model.config), cache=tmp_path)


def test_features_are_those_of_the_tower_in_evaluation_mode(model, split):
    model.train()
    found = cached_features(model.video, split.frames, batch=5)
    assert model.video.backbone.training  # left as it was
    model.eval()
    with torch.inference_mode():
        wanted = model.video.encode_frames(torch.from_numpy(np.array(split.frames.pixels[: len(split.frames.clips)])))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_features_are_computed_once(model, split, monkeypatch):
    first = np.array(cached_features(model.video, split.frames, batch=4))
    monkeypatch.setattr(feature_cache, "_write", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(cached_features(model.video, split.frames, batch=4), first)


def test_other_weights_are_other_features(model, split):
    first = np.array(cached_features(model.video, split.frames, batch=4))
    with torch.no_grad():
        next(model.video.backbone.parameters()).mul_(1.5)
    assert not np.array_equal(cached_features(model.video, split.frames, batch=4), first)
