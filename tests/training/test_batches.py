from pathlib import Path

import numpy as np
import pytest

from vtr_runtime.errors import ConfigError
from vtr_training.data.batches import BatchPlan
from vtr_training.data.clip import Clip


def clips(count, width=None):
    return [
        Clip(Path(f"{i}.mp4"), ("a", "b", "c")[: 1 + i % 3], "train", group=f"g{i // width}" if width else None)
        for i in range(count)
    ]


def test_a_pass_shows_every_clip_once_and_passes_differ():
    plan = BatchPlan(clips(24), size=8, seed=1)
    passes = [np.concatenate([plan.batch(step).clips for step in range(start, start + 3)]) for start in (0, 3)]
    for rows in passes:
        assert sorted(rows.tolist()) == list(range(24))
    assert passes[0].tolist() != passes[1].tolist()


def test_a_batch_depends_on_seed_and_step_alone():
    one, two, other = (BatchPlan(clips(40, 4), size=8, seed=seed, groups_from=5) for seed in (1, 1, 2))
    for step in (0, 4, 5, 30):
        np.testing.assert_array_equal(one.batch(step).clips, two.batch(step).clips)
        np.testing.assert_array_equal(one.batch(step).captions, two.batch(step).captions)
    assert any(one.batch(step).clips.tolist() != other.batch(step).clips.tolist() for step in range(3))


def test_batches_are_made_of_whole_groups_from_the_given_step_on():
    loose = Clip(Path("x.mp4"), ("a",), "train", group="short")
    plan = BatchPlan([*clips(40, 4), loose], size=8, seed=0, groups_from=3)
    for step in range(3, 30):
        rows = plan.batch(step).clips
        assert len(set(rows.tolist())) == 8
        assert {tuple(range(4 * g, 4 * g + 4)) for g in (rows // 4)} == {
            tuple(part) for part in rows.reshape(2, 4).tolist()
        }
    seen = {int(row) for step in range(3, 8) for row in plan.batch(step).clips}
    assert seen == set(range(40))


def test_all_captions_of_a_clip_come_up():
    items = clips(9)
    plan = BatchPlan(items, size=9, seed=0)
    seen = {(int(row), int(c)) for step in range(60) for row, c in zip(*vars(plan.batch(step)).values(), strict=True)}
    assert seen == {(i, c) for i, clip in enumerate(items) for c in range(len(clip.captions))}


@pytest.mark.parametrize(
    ("count", "width", "size", "groups_from", "message"),
    [
        (5, None, 8, None, "batches of 8 cannot be made from 5 clips"),
        (16, None, 8, 0, "no training clip has a group"),
        (16, 4, 6, 0, "whole groups of 4"),
    ],
)
def test_what_cannot_be_batched_is_refused(count, width, size, groups_from, message):
    with pytest.raises(ConfigError, match=message):
        BatchPlan(clips(count, width), size=size, seed=0, groups_from=groups_from)
