import pytest

from vtr_runtime.errors import ConfigError
from vtr_training.demo.captions import COLOURS, KINDS, MOTIONS, SHAPES, Cell, caption
from vtr_training.demo.plan import DemoSize, plan_scenes

SCENES = plan_scenes(DemoSize(), seed=0)


def of(split):
    return [scene for scene in SCENES if scene.split == split]


def test_no_cell_is_in_two_splits_or_parts():
    test = of("test")
    parts = [of("train"), of("val"), [s for s in test if s.grouped], [s for s in test if not s.grouped]]
    cells = [{scene.cell for scene in part} for part in parts]
    assert sum(map(len, cells)) == len(set().union(*cells)) == len(COLOURS) * len(SHAPES) * len(KINDS)
    assert [len(part) for part in cells[1:]] == [24, 40, 24]  # a cell comes up once outside training


def test_sizes_and_groups():
    clips = {split: sum(len(scene.clips) for scene in of(split)) for split in ("train", "val", "test")}
    assert clips == {"train": 3200, "val": 96, "test": 184}
    assert {len(scene.clips) for scene in of("test")} == {1, 4}
    for scene in SCENES:
        members = [clip.member for clip in scene.clips]
        assert members == [0, 1, 2, 3] or (len(members) == 1 and scene.split == "test")
    for split in ("val", "test"):
        kinds = [scene.cell.kind for scene in of(split) if scene.grouped]
        assert len({kinds.count(kind) for kind in KINDS}) == 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_captions_of_a_split_are_distinct_and_hold_no_word_unseen_in_training(split):
    captions = [text for scene in of(split) for clip in scene.clips for text in clip.captions]
    assert len(set(captions)) == len(captions)
    known = {word for scene in of("train") for clip in scene.clips for text in clip.captions for word in text.split()}
    assert {word for text in captions for word in text.split()} <= known


def test_every_training_clip_has_several_phrasings():
    assert all(len(set(clip.captions)) == 4 for scene in of("train") for clip in scene.clips)


def test_no_phrasing_means_two_things():
    phrases = [phrase for members in MOTIONS.values() for member in members for phrase in member]
    assert len(set(phrases)) == len(phrases)


def test_paths_are_distinct():
    paths = [clip.path for scene in SCENES for clip in scene.clips]
    assert len(set(paths)) == len(paths)


def test_the_article_fits():
    import numpy as np

    for shape in SHAPES:
        words = caption(Cell("orange", shape, "fade"), 0, np.random.default_rng(1))
        assert "a orange" not in words


def test_the_plan_depends_on_the_seed_alone():
    assert plan_scenes(DemoSize(), seed=0) == SCENES
    other = plan_scenes(DemoSize(), seed=1)
    assert {scene.cell for scene in other if scene.split == "test"} != {scene.cell for scene in of("test")}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train_clips": 0}, "0 training clips"),
        ({"train_clips": 10}, "10 training clips are not whole groups of 4"),
        ({"val_groups": 3}, "val_groups=3"),
        ({"test_plain": -4}, "test_plain=-4"),
        ({"test_groups": 100}, "more than half"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ConfigError, match=message):
        DemoSize(**sizes)
