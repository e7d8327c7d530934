"""A small generated data set and a small model, shared by the training tests."""

from pathlib import Path

import pytest
import torch

from vtr_training.demo.plan import DemoSize
from vtr_training.demo.write import write_demo_data
from vtr_training.recipe import Recipe

SMALL = DemoSize(train_clips=32, val_groups=4, test_groups=4, test_plain=4)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # The tests share the machine, and a resumed run is compared bit for bit.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder, size=SMALL, seed=3)
    return folder


@pytest.fixture(scope="session")
def settings(demo, tmp_path_factory) -> dict:
    """A recipe as a dict: some steps of a very small model on the generated clips."""
    return {
        "steps": 6,
        "device": "cpu",
        "data": {"spec": str(demo), "cache": str(tmp_path_factory.mktemp("frames"))},
        "model": {
            "frames": 12,
            "backbone": {
                "embed_dim": 32,
                "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 2, "head_width": 32},
                "text_cfg": {"width": 16, "heads": 1, "layers": 1, "context_length": 32},
            },
            "temporal": {"kind": "mstdt", "heads": 1, "init": "random", "position_init": "normal"},
            "alignment": {"kind": "dits", "steps": 2, "beta_start": 0.01, "beta_end": 0.01, "blocks": 1, "heads": 1},
        },
        "batches": {"size": 8, "groups_from": 0.5, "distinct_frames": True},
        "optim": {"lr": 1e-3, "clip_lr": 1e-3},
        "loss": {"bsl": {"weight": 0.1}},
        "validation": {"every": 2, "metric": "t2v_r1+group_r1"},
    }


@pytest.fixture
def recipe(settings) -> Recipe:
    return Recipe.model_validate(settings)
