import json

import pytest

from vtr_runtime.errors import DataError
from vtr_training.data.jsonl import Clip, read_clips

GOOD = {"video": "a/b.mp4", "captions": ["a dog runs"], "split": "train"}


def write(folder, *lines):
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_every_field(tmp_path):
    full = {**GOOD, "split": "test", "start": 1.5, "end": 4, "group": "g", "kind": "k", "captions": ["x", "Straße"]}
    path = write(tmp_path, GOOD, b"", full)
    expected = [
        Clip(tmp_path / "a/b.mp4", ("a dog runs",), "train"),
        Clip(tmp_path / "a/b.mp4", ("x", "Straße"), "test", 1.5, 4.0, "g", "k"),
    ]
    assert read_clips(path) == expected
    assert read_clips(str(tmp_path)) == expected  # a folder means its data.jsonl
    assert read_clips(path, "test") == expected[1:]


def test_an_absolute_path_stays(tmp_path):
    assert str(read_clips(write(tmp_path, {**GOOD, "video": "/x/y.mp4"}))[0].video) == "/x/y.mp4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json", "Invalid JSON"),
        (b"[1, 2]", "object"),
        (b'{"video": "\xff"}', "JSON"),
        ({"captions": ["x"], "split": "train"}, "video: Field required"),
        ({**GOOD, "captions": []}, "captions: "),
        ({**GOOD, "captions": ["  "]}, r"captions\.0: "),
        ({**GOOD, "captions": "x"}, "captions: "),
        ({**GOOD, "video": ""}, "video: "),
        ({**GOOD, "split": "dev"}, "split: .*'train', 'val' or 'test'"),
        ({**GOOD, "start": -1}, "start: "),
        ({**GOOD, "end": 0}, "end: "),
        ({**GOOD, "start": 3, "end": 2}, "end 2.0 is not after start 3.0"),
        ({**GOOD, "stop": 2}, "stop: "),
        (b'{"video": "a", "captions": ["x"], "split": "train", "start": NaN}', "NaN|finite|JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path, GOOD, line)
    with pytest.raises(DataError, match=message) as caught:
        read_clips(path)
    assert str(caught.value).startswith(f"{path}:2: ")


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"data\.jsonl is not there"):
        read_clips(tmp_path)
    with pytest.raises(DataError, match="no clip of the split 'val'"):
        read_clips(write(tmp_path, GOOD), "val")
    with pytest.raises(DataError, match="has no clip;"):
        read_clips(write(tmp_path, b""))
