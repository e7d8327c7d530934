"""The written clips, read back by the runtime's own frame reader and by plain PyAV."""

import hashlib
from fractions import Fraction

import av
import numpy as np
import pytest

from vtr_runtime.errors import OutputExistsError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.video import read_frames
from vtr_training.data.source import read_clips
from vtr_training.demo.captions import KINDS, MEMBERS, Cell
from vtr_training.demo.clips import ORDERS
from vtr_training.demo.pictures import OUTLINES, RGB, SIZE, draw_scene, render
from vtr_training.demo.plan import DemoSize
from vtr_training.demo.write import write_demo_data

TINY = DemoSize(train_clips=4, val_groups=4, test_groups=4, test_plain=4)


def groups(folder, split):
    found = {}
    for clip in read_clips(folder, split):
        found.setdefault(clip.group, []).append(clip)
    return found


@pytest.mark.parametrize("size", [32, 112])
def test_members_of_a_group_show_the_same_frames_in_another_order(demo, size):
    test = groups(demo, "test")
    assert len(test.pop(None)) == 4  # single clips
    assert {clip.kind for members in test.values() for clip in members} == set(KINDS)
    for members in test.values():
        frames = [read_frames(clip.video, FrameSpec(size=size)) for clip in members]
        assert all(item.mask.all() and not item.warnings for item in frames)
        shown = [[frame.tobytes() for frame in item.pixels] for item in frames]
        assert len(set(shown[0])) == 12  # twelve different pictures
        assert all(sorted(member) == sorted(shown[0]) for member in shown)
        assert [[shown[0].index(frame) for frame in member] for member in shown] == [ORDERS[name] for name in MEMBERS]


def test_orders_are_there_back_and_both_ways():
    assert all(sorted(order) == list(range(12)) for order in ORDERS.values())
    signs = {name: np.sign(np.diff(order)).tolist() for name, order in ORDERS.items()}
    assert signs["there"] == [1] * 11
    assert signs["back"] == [-1] * 11
    assert signs["there-back"] == [1] * 6 + [-1] * 5
    assert signs["back-there"] == [-1] * 6 + [1] * 5


def test_scenes_move_as_their_kind_says():
    rng = np.random.default_rng(0)
    moving = {"left-right": ("x", 1), "up-down": ("y", -1), "grow-shrink": ("radius", 1), "fade": ("opacity", 1)}
    for kind, (axis, sign) in moving.items():
        for name, values in vars(draw_scene(kind, rng)).items():
            steps = np.diff(values)
            assert (np.sign(steps) == sign).all() if name == axis else not steps.any()


def test_the_shape_is_where_the_scene_says():
    """The centre of the coloured pixels moves right by what the places say."""
    for shape in OUTLINES:
        pictures = render(Cell("red", shape, "left-right"), np.random.default_rng(4)).astype(int)
        coloured = (pictures[..., 0] - pictures[..., 1]) > 60
        centres = [np.argwhere(picture).mean(axis=0) for picture in coloured]
        columns = np.array([centre[1] for centre in centres]) / SIZE
        assert columns[0] < 0.3 < 0.7 < columns[-1]
        assert (np.diff(columns) > 0.02).all()
        assert np.ptp([centre[0] for centre in centres]) < 3
    assert set(RGB) == {"red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"}


def test_clips_are_h264_of_two_seconds(demo):
    with av.open(str(read_clips(demo, "train")[0].video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", SIZE, SIZE)
        frames = list(container.decode(stream))
    assert [Fraction(frame.pts) * frame.time_base for frame in frames] == [Fraction(i, 12) for i in range(24)]
    assert [frame.key_frame for frame in frames] == [True, False] * 12


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_demo_data(tmp_path / name, size=TINY, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_what_is_written(tmp_path):
    written = write_demo_data(tmp_path / "data", size=TINY, seed=1)
    assert written.clips == {"train": 4, "val": 16, "test": 20}
    found = read_clips(tmp_path / "data")
    assert len(found) == 40
    assert all(clip.video.is_file() for clip in found)
    assert "4 training, 16 validation and 20 test clips" in (tmp_path / "data" / "README.txt").read_text()
    assert written.bytes == sum(path.stat().st_size for path in (tmp_path / "data").rglob("*") if path.is_file())


def test_an_existing_folder_stays(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("keep")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_demo_data(tmp_path / "data", size=TINY, seed=1)
    assert digests(tmp_path / "data").keys() == {"mine.txt"}
    write_demo_data(tmp_path / "data", size=TINY, seed=1, overwrite=True)
    assert (tmp_path / "data" / "data.jsonl").is_file()
    assert not (tmp_path / "data" / "mine.txt").exists()
