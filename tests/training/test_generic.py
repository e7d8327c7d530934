import json

import pytest

from vtr_runtime.errors import DataError
from vtr_training.data.clip import Clip
from vtr_training.data.source import read_clips

GOOD = {"video": "a/b.mp4", "captions": ["a dog runs"], "split": "train"}


def write(folder, *lines):
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_every_field(tmp_path):
    full = {**GOOD, "split": "test", "start": 1.5, "end": 4, "group": "g", "kind": "k", "captions": ["x", "Straße"]}
    full["id"] = "mine"
    path = write(tmp_path, GOOD, b"", full)
    expected = [
        Clip(tmp_path / "a/b.mp4", ("a dog runs",), "train", id="a/b.mp4"),
        Clip(tmp_path / "a/b.mp4", ("x", "Straße"), "test", 1.5, 4.0, "g", "k", id="mine"),
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


ROWS = """\
video,caption,split,start,end,group\r
a/b.mp4,"a dog, running",train,,,\r
a/b.mp4,"it says ""stop""
and stops",train,,,\r
-x@N01.mp4,a cat,test,1.5,4,g\r
"""


def test_csv_has_a_row_for_each_caption(tmp_path):
    """Windows line ends, a byte order mark, commas, quotes and a line break within quotes."""
    (tmp_path / "data.csv").write_bytes(b"\xef\xbb\xbf" + ROWS.encode())
    dog, cat = read_clips(tmp_path)
    assert dog.video == tmp_path / "a/b.mp4"
    assert dog.captions == ("a dog, running", 'it says "stop"\nand stops')
    assert (cat.id, cat.captions, cat.split, cat.start, cat.end, cat.group) == (
        "-x@N01.mp4",
        ("a cat",),
        "test",
        1.5,
        4,
        "g",
    )


@pytest.mark.parametrize(
    ("row", "line", "message"),
    [
        ("a.mp4,,train,,,", 2, "captions: Field required"),
        ("a.mp4,x,dev,,,", 2, "split: "),
        ("a.mp4,x,train,3,2,", 2, "end 2.0 is not after start 3.0"),
        ("a.mp4,x,train,three,,", 2, "start: "),
        ("a.mp4,x,train,,", 2, "5 fields where the header has 6"),
        ('a.mp4,"x\ny",train,,,\na.mp4,x', 4, "2 fields"),
        ('a.mp4,"x" y,train,,,', 2, "mend the quotes"),
        ('a.mp4,"x,train,,,', 2, "mend the quotes"),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path, row, line, message):
    path = tmp_path / "data.csv"
    path.write_text(f"{ROWS.splitlines()[0]}\n{row}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_clips(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_csv_header_without_a_column(tmp_path):
    (tmp_path / "data.csv").write_text("file,caption\na,b\n")
    with pytest.raises(DataError, match=r"data\.csv:1: no column 'video', only file, caption"):
        read_clips(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,caption,split\na,ok,train\nb,caf\u00e9,train\n".encode("cp1252"), r"csv:3: byte 0xe9 is not UTF-8"),
        ("video,caption,split\n".encode("utf-16"), "csv:1: the file is UTF-16"),
        (b"", "is empty"),
    ],
)
def test_other_encodings_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_clips(tmp_path)


def test_parquet_has_captions_in_a_list_or_a_row_each(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {"video": ["a.mp4"], "captions": [["x", "y"]], "split": ["train"], "start": [0.5], "end": [None]}
    rows = {"video": ["a.mp4"] * 2, "caption": ["x", "y"], "split": ["train"] * 2, "start": [0.5] * 2}
    for number, columns in enumerate((lists, rows)):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    one, other = (read_clips(tmp_path / f"{number}.parquet") for number in range(2))
    assert one == other == [Clip(tmp_path / "a.mp4", ("x", "y"), "train", 0.5, id="a.mp4")]


def test_a_bad_parquet_row_or_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"video": ["a", None], "caption": ["x", "y"], "split": ["train"] * 2}), path)
    with pytest.raises(DataError, match=r"parquet: row 2: video: Field required"):
        read_clips(tmp_path)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_clips(path)


def test_two_files_in_a_folder_are_not_guessed_between(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "data.csv").write_text("video,caption,split\na,b,train\n")
    with pytest.raises(DataError, match=r"data\.jsonl and data\.csv; name the one"):
        read_clips(tmp_path)
    assert len(read_clips(tmp_path / "data.csv")) == 1
