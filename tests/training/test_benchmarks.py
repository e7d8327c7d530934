"""Readers of the benchmarks' files, on small files in the originals' layouts; what is expected is written by hand."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from vtr_runtime.errors import ConfigError, DataError
from vtr_training.data.protocols import PROTOCOLS
from vtr_training.data.registry import READERS
from vtr_training.data.source import DataSource, read_clips, shortfalls
from vtr_training.data.spec import parse_spec, replace_place
from vtr_training.data.tree import Tree, stem_of

FILES = Path(__file__).parents[1] / "data" / "annotations"

# SPEC's name, folder -> split -> id -> captions, in order
EXPECTED = {
    ("msrvtt-9k", "msrvtt"): {
        "train": {
            "video0": ["a made-up dog digs", "someone’s dog digs a hole"],
            "video1": ["two people fold a map", "a map, folded"],
            "video2": ["a kite over a naïve drawing"],
            "video6513": ["a boat", "a boat in fog"],
        },
        "test": {"video7010": ["rain runs down a window"], "video7011": ["a field, white with snow"]},
    },
    ("msrvtt-7k", "msrvtt"): {
        "train": {
            "video0": ["a made-up dog digs", "someone’s dog digs a hole"],
            "video6513": ["a boat", "a boat in fog"],
        },
    },
    ("msrvtt-1ka", "msrvtt"): {
        "test": {"video7010": ["rain runs down a window"], "video7011": ["a field, white with snow"]},
    },
    ("msrvtt-full", "msrvtt"): {
        "train": {
            "video0": ["a made-up dog digs", "someone’s dog digs a hole"],
            "video1": ["two people fold a map", "a map, folded"],
            "video2": ["a kite over a naïve drawing"],
        },
        "val": {"video6513": ["a boat", "a boat in fog"]},
        "test": {"video7010": ["a test clip of rain"], "video7011": ["snow falls"]},
    },
    ("msvd", "msvd"): {
        "train": {
            "-4xYz_abCD0_5_15": ["a squirrel of our own words eats", "a small animal eats"],
            "AbCdEfGhIjK_1_9": ["a train passes"],
        },
        "val": {"Q1w_e3-r5T7_16_32": ["someone rolls dough"]},
        "test": {"abcdefghijk_1_9": ["a tram passes", "a tram goes by"], "AbCdEfGhIjK_30_41": ["the train again"]},
    },
    ("tgif", "tgif"): {
        "train": {"tumblr_nabc1_400": ["a man of our own words waves"], "tumblr_nabc2o1_250": ["a cat turns round ."]},
        "val": {"tumblr_nabc4o1_400": ["a woman nods"]},
        "test": {"tumblr_nabc3o1_500": ["a ball rolls", "a ball falls from a table", "the ball is red"]},
    },
    ("didemo", "didemo"): {
        "train": {
            "98765432@N07_222_bbb.": ["a hand opens the door"],
            "12345678@N00_111_aaa.mov": ["the dog looks up. it runs away"],
        },
        "val": {"11111111@N01_333_ccc.avi": ["first a child then a ball"]},
        "test": {"22222222@N02_444_ddd.3gp": ["smoke rises."]},
    },
    ("didemo-tmass", "didemo"): {
        "train": {
            "12345678@N00_111_aaa.mov": ["the dog looks up. it runs away"],
            "98765432@N07_222_bbb.": ['a hand, "his", opens the door'],
        },
        "val": {"11111111@N01_333_ccc.avi": ["first a child then a ball"]},
        "test": {"22222222@N02_444_ddd.3gp": ["smoke rises."]},
    },
    ("activitynet", "activitynet"): {
        "train": {
            "v_-QOlSCBRmfW": ["A person of our own words ties a rope. They climb it."],
            "v_ehGHCYKzyZ8": ["A cook, alone."],
        },
        "test": {"v_uqiMw7tQ1Cc": ["A weight is lifted."]},
    },
    ("lsmdc", "lsmdc"): {
        "train": {
            "0001_Made_Up_Film_00.00.32.166-00.00.37.722": ["SOMEONE opens a letter.", "SOMEONE reads it."],
            "0001_Made_Up_Film_00.00.41.000-00.00.44.500": ['A "quoted" word, and SOMEONE smiles.'],
            "0001_Made_Up_Film_00.00.50.000-00.00.52.000": ['He says "no".'],
        },
        "val": {"0002_Another_00.01.00.000-00.01.02.000": ["Rain."]},
        "test": {"0003_Third_00.02.00.000-00.02.02.000": ["SOMEONE nods."]},
    },
    ("vatex", "vatex"): {
        "train": {
            "-PCVHF3Kp3M_000169_000179": [f"caption {i} of -PC in our own words" for i in range(10)],
            "Ptf_2VRj-V0_000122_000132": [f"caption {i} of Ptf in our own words" for i in range(10)],
        },
        "val": {"3c0hLqxvSSI_000000_000010": [f"caption {i} of 3c0 in our own words" for i in range(10)]},
        "test": {"sf2PPeXQrUA_000000_000010": [f"caption {i} of sf2 in our own words" for i in range(10)]},
    },
    ("charades", "charades"): {
        "train": {
            "46GP8": ["A person of our own words cooks and looks out of a window."],
            "N11GT": ["One person opens a blanket, then sneezes."],
        },
        "test": {"YSKX3": ['They say "hello" and leave.']},
    },
}
EXPECTED["msvd", "msvd-pickle"] = EXPECTED["msvd", "msvd"]
EXPECTED["vatex", "vatex-original"] = EXPECTED["vatex", "vatex"]


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FILES / name, folder / name))


def put_videos(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.mark.parametrize(("name", "folder"), EXPECTED)
def test_ids_and_captions(name, folder):
    source = DataSource(f"{name}:{FILES / folder}")
    for split, clips in EXPECTED[name, folder].items():
        found = source.split(split)
        assert [(clip.id, list(clip.captions)) for clip in found.clips] == list(clips.items())
        assert {clip.split for clip in found.clips} == {split}
        assert found.absent == set(clips)  # no video lies there
        assert found.faults == ()
        assert found.documented == PROTOCOLS[name].splits[split]


def test_every_protocol_has_a_reader_and_a_fixture():
    assert READERS.keys() == PROTOCOLS.keys() == {name for name, _ in EXPECTED}
    assert all(set(splits) <= set(PROTOCOLS[name].splits) for (name, _), splits in EXPECTED.items())


def test_times_within_the_source_do_not_cut_the_file():
    """MSR-VTT's `start time` belongs to the YouTube video, ActivityNet's timestamps and DiDeMo's `times` (in chunks of
    five seconds) to moments that paragraphs do not use. DiDeMo's videos end at 31 s."""
    for name, folder in EXPECTED:
        source = DataSource(f"{name}:{FILES / folder}")
        cuts = {(clip.start, clip.end) for split in source.splits for clip in source.split(split).clips}
        assert cuts == {(None, 31.0 if name.startswith("didemo") else None)}


def test_what_clips_were_cut_from():
    """Test clips of the same source as training clips: MSR-VTT by URL, MSVD by YouTube id, LSMDC by film."""

    def sources(spec, split):
        return {clip.source for clip in DataSource(spec).split(split).clips}

    full = f"msrvtt-full:{FILES / 'msrvtt'}"
    assert sources(full, "train") & sources(full, "test") == {"https://www.youtube.com/watch?v=aaaaaaaaaaa"}
    msvd = f"msvd:{FILES / 'msvd'}"
    assert sources(msvd, "train") & sources(msvd, "test") == {"AbCdEfGhIjK"}  # and not abcdefghijk: case counts
    assert sources(f"lsmdc:{FILES / 'lsmdc'}", "train") == {"0001_Made_Up_Film"}


# Videos


@pytest.mark.parametrize(
    ("name", "folder", "split", "files"),
    [
        ("msrvtt-1ka", "msrvtt", "test", ["TestVideo/video7010.mp4", "videos/all/video7011.WEBM"]),
        ("msvd", "msvd", "train", ["YouTubeClips/-4xYz_abCD0_5_15.avi", "AbCdEfGhIjK_1_9.mp4"]),
        ("tgif", "tgif", "train", ["gifs/tumblr_nabc1_400.gif", "mp4/tumblr_nabc2o1_250.mp4"]),
        ("didemo", "didemo", "train", ["98765432@N07_222_bbb.", "12345678@N00_111_aaa.mov"]),
        ("didemo", "didemo", "train", ["98765432@N07_222_bbb.mp4", "12345678@N00_111_aaa.mov.mp4"]),
        ("didemo", "didemo", "train", ["98765432@N07_222_bbb", "12345678@N00_111_aaa.mp4"]),
        ("activitynet", "activitynet", "train", ["v_-QOlSCBRmfW.mp4", "Activity_Videos/ehGHCYKzyZ8.mkv"]),
        ("lsmdc", "lsmdc", "val", ["0002_Another/0002_Another_00.01.00.000-00.01.02.000.avi"]),
        ("vatex", "vatex", "train", ["-PCVHF3Kp3M_000169_000179.mp4", "Ptf_2VRj-V0_000122_000132.webm"]),
        ("charades", "charades", "train", ["Charades_v1_480/46GP8.mp4", "Charades_v1_480/N11GT.mp4"]),
    ],
)
def test_videos_are_found_by_id(tmp_path, name, folder, split, files):
    root = copied(folder, tmp_path)
    put_videos(root, *files)
    put_videos(root, ".frames/video7010.mp4", "video7010.txt", "video70100.mp4", "xvideo7010.mp4")
    found = DataSource(f"{name}:{root}").split(split)
    assert {clip.video for clip in found.clips if clip.id not in found.absent} == {root / file for file in files}
    assert (found.absent, found.faults) == (frozenset(), ())
    elsewhere = tmp_path / "elsewhere"
    put_videos(elsewhere, *files)
    other = DataSource(f"{name}:{root}?videos={elsewhere}").split(split)
    assert {clip.video for clip in other.clips} == {elsewhere / file for file in files}


def test_two_files_of_one_clip_are_reported(tmp_path):
    root = copied("msrvtt", tmp_path)
    put_videos(root, "a/video7010.mp4", "b/video7010.avi", "a/video7011.mp4")
    found = DataSource(f"msrvtt-1ka:{root}").split("test")
    assert len(found.faults) == 1
    assert "may both be the video of video7010" in found.faults[0]
    assert DataSource(f"msrvtt-1ka:{root}?videos={root / 'a'}").split("test").faults == ()


def test_the_folder_is_listed_once(tmp_path, monkeypatch):
    root = copied("msrvtt", tmp_path)
    listed = []
    original = Tree.__init__
    monkeypatch.setattr(Tree, "__init__", lambda self, root: listed.append(root) or original(self, root))
    source = DataSource(f"msrvtt-full:{root}")
    assert [source.split(split).name for split in source.splits] == ["train", "val", "test"]
    assert listed == [root]


def test_a_folder_that_links_to_itself_ends(tmp_path):
    root = copied("msrvtt", tmp_path)
    (root / "loop").symlink_to(root, target_is_directory=True)
    put_videos(tmp_path / "disk", "video7010.mp4")
    (root / "videos").symlink_to(tmp_path / "disk", target_is_directory=True)
    found = DataSource(f"msrvtt-1ka:{root}").split("test")
    assert found.absent == {"video7011"}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("video1.mp4", "video1"),
        ("a.b.MKV", "a.b"),
        ("x_00.00.32.166-00.00.37.722", "x_00.00.32.166-00.00.37.722"),
        ("123@N01_4.", "123@N01_4"),
        (".mp4", ".mp4"),
        ("-x", "-x"),
    ],
)
def test_stems(name, stem):
    assert stem_of(name) == stem


# Whole or not


def test_a_benchmark_must_be_whole_or_asked_for_as_a_subset(tmp_path):
    root = copied("msrvtt", tmp_path)
    put_videos(root, "video7010.mp4")
    with pytest.raises(
        DataError, match=r"split test: 2 captions are annotated where 1,000 are documented \(and 2 more\)"
    ) as caught:
        read_clips(f"msrvtt-1ka:{root}", "test")
    assert "vtr-train check" in str(caught.value)
    assert "subset=yes" in str(caught.value)
    clips = read_clips(f"msrvtt-1ka:{root}?subset=yes", "test")
    assert [clip.id for clip in clips] == ["video7010", "video7011"]
    assert [clip.video.exists() for clip in clips] == [True, False]  # the absent one is skipped where it is decoded


def test_a_whole_benchmark_is_read(tmp_path):
    """1,000 rows and 1,000 files, then one file less, then one row."""
    rows = [f"ret{i},msr{i},video{i},caption {i}\n" for i in range(1000)]
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text("key,vid_key,video_id,sentence\n" + "".join(rows))
    put_videos(tmp_path, *(f"all/video{i}.mp4" for i in range(1000)))
    spec = f"msrvtt-1ka:{tmp_path}"
    assert [clip.captions for clip in read_clips(spec, "test")] == [(f"caption {i}",) for i in range(1000)]
    assert read_clips(spec) == read_clips(spec, "test")
    (tmp_path / "all/video7.mp4").unlink()
    with pytest.raises(DataError, match="1 of 1,000 clips have no video: video7;"):
        read_clips(spec, "test")
    path.write_text("key,vid_key,video_id,sentence\n" + "".join(rows[8:]))
    with pytest.raises(DataError, match="992 captions are annotated where 1,000 are documented"):
        read_clips(spec, "test")


def test_duplicates_and_empty_captions_are_left_out_and_named(tmp_path):
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text("key,vid_key,video_id,sentence\n0,0,a,x\n1,1,b,\n2,2,a,y\n3,3,c,  \n")
    found = DataSource(f"msrvtt-1ka:{tmp_path}").split("test")
    assert [(clip.id, clip.captions) for clip in found.clips] == [("a", ("x",))]
    assert [fault.removeprefix(f"{path}:") for fault in found.faults] == [
        "3: b has no caption; find it, or take the id out",
        f"4: a stands here twice, also at {path}:2; take one out",
        "5: c has no caption; find it, or take the id out",
    ]
    assert all(fault in shortfalls(found) for fault in found.faults)


def test_one_empty_caption_among_others(tmp_path):
    root = copied("msvd", tmp_path)
    said = {"Q1w_e3-r5T7_16_32": ["", "someone rolls dough", " "]}
    (root / "captions_msvd.json").write_text(json.dumps(said))
    found = DataSource(f"msvd:{root}").split("val")
    assert [clip.captions for clip in found.clips] == [("someone rolls dough",)]
    assert found.faults == (f"{root / 'val_list.txt'}:1: 2 caption(s) of Q1w_e3-r5T7_16_32 are empty",)


def test_a_listed_id_without_captions_is_named_with_its_line(tmp_path):
    root = copied("msvd", tmp_path)
    (root / "val_list.txt").write_text("Q1w_e3-r5T7_16_32\n\nnobody_1_2\n")
    found = DataSource(f"msvd:{root}").split("val")
    assert found.faults == (f"{root / 'val_list.txt'}:3: nobody_1_2 has no caption; find it, or take the id out",)


# Held out


def test_training_videos_held_out_become_val(tmp_path):
    root = copied("msrvtt", tmp_path)
    with pytest.raises(DataError, match=r"no split 'val', only train, test; .*held_out"):
        DataSource(f"msrvtt-9k:{root}").split("val")
    source = DataSource(f"msrvtt-9k:{root}?held_out=1")
    train, val = source.split("train"), source.split("val")
    assert (source.splits, len(train.clips), len(val.clips)) == (("train", "val", "test"), 3, 1)
    assert {clip.id for clip in (*train.clips, *val.clips)} == set(EXPECTED["msrvtt-9k", "msrvtt"]["train"])
    assert val.clips[0].split == "val"
    assert any(sentence.startswith("4 videos are annotated where 9,000") for sentence in shortfalls(train))
    lines = (root / "csv/MSRVTT_train.9k.csv").read_text().split()
    (root / "csv/MSRVTT_train.9k.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert DataSource(f"msrvtt-9k:{root}?held_out=1").split("val").clips == val.clips  # whatever the order


# Damaged files


@pytest.mark.parametrize(
    ("spec", "file", "content", "message"),
    [
        ("msrvtt-9k:msrvtt", "MSRVTT_data.json", b'{"videos": [', r"MSRVTT_data\.json:1: not JSON"),
        ("msrvtt-9k:msrvtt", "MSRVTT_data.json", b"[]", r"MSRVTT_data\.json: the whole: .*; this is another file"),
        (
            "msrvtt-9k:msrvtt",
            "MSRVTT_data.json",
            b'{"videos": [], "sentences": [{"caption": 3, "video_id": "video0"}]}',
            r"\['sentences'\]\[0\]\['caption'\]: Input should be a valid string",
        ),
        ("msrvtt-9k:msrvtt", "csv/MSRVTT_train.9k.csv", b"id\nvideo0\n", r"9k\.csv:1: no column 'video_id', only id"),
        ("msrvtt-9k:msrvtt", "csv/MSRVTT_train.9k.csv", b"video_id\nvide\xf60\n", r"9k\.csv:2: byte 0xf6 is not UTF-8"),
        ("msvd:msvd", "captions_msvd.json", b'{\n"a": ["x"],\n"a": ["y"]}', r"json:3: 'a' stands here twice"),
        ("msvd:msvd-pickle", "raw-captions.pkl", b"no pickle", "not a pickle of plain lists"),
        ("tgif:tgif", "tgif-v1.0.tsv", b"https://a/b.gif a cat\n", r"tsv:1: no tab between"),
        (
            "didemo-tmass:didemo",
            "didemo_train_label.csv",
            b'video_path,text\r\n"a\r\nb",c\r\nd\r\n',
            r"csv:4: 1 fields",
        ),
        ("lsmdc:lsmdc", "LSMDC16_annos_training.csv", b"a\tb\n", r"csv:1: 2 columns .*CLIP_ID"),
        ("activitynet:activitynet", "train.json", b'{"v_a": {"sentences": "x"}}', r"\['v_a'\]\['sentences'\]: "),
    ],
)
def test_damage_is_named_with_file_and_line(tmp_path, spec, file, content, message):
    name, folder = spec.split(":")
    root = copied(folder, tmp_path)
    assert (root / file).is_file()
    (root / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        DataSource(f"{name}:{root}").split("train")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    root = copied("msvd-pickle", tmp_path)
    (root / "raw-captions.pkl").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(DataError, match=r"not a pickle of plain lists \(it asks for "):
        DataSource(f"msvd:{root}").split("train")
    assert not (tmp_path / "trapped").exists()


def test_windows_line_ends_and_other_breaks(tmp_path):
    """\\r\\n ends a line; U+2028 and \\x85, at which str.splitlines breaks, do not."""
    root = copied("tgif", tmp_path)
    text = "https://a.b/c/tumblr_n1_400.gif\ta cat\u2028sits\x85down\r\n"
    (root / "tgif-v1.0.tsv").write_bytes(("\ufeff" + text).encode())
    (root / "splits/train.txt").write_bytes(b"\xef\xbb\xbfhttps://a.b/c/tumblr_n1_400.gif\r\n\r\n")
    [clip] = DataSource(f"tgif:{root}").split("train").clips
    assert (clip.id, clip.captions) == ("tumblr_n1_400", ("a cat\u2028sits\x85down",))


def test_files_that_are_not_there(tmp_path):
    """As when a recipe is given the folder of another data set."""
    with pytest.raises(DataError, match=r"MSRVTT_train\.9k\.csv is not there below .*msvd; fetch it"):
        read_clips(f"msrvtt-9k:{FILES / 'msvd'}", "train")
    with pytest.raises(DataError, match="is not a folder"):
        read_clips(f"msrvtt-9k:{tmp_path / 'none'}", "train")
    root = copied("msrvtt", tmp_path)
    shutil.copy(root / "csv/MSRVTT_JSFUSION_test.csv", root)
    with pytest.raises(DataError, match="have the same name; leave only the one"):
        read_clips(f"msrvtt-1ka:{root}", "test")


def test_the_original_release_of_msrvtt_is_two_files(tmp_path):
    root = copied("msrvtt", tmp_path)
    data = json.loads((root / "MSRVTT_data.json").read_text())
    (root / "MSRVTT_data.json").unlink()
    for name, splits in (("train_val_videodatainfo", ("train", "validate")), ("test_videodatainfo", ("test",))):
        videos = [video for video in data["videos"] if video["split"] in splits]
        ids = {video["video_id"] for video in videos}
        sentences = [sentence for sentence in data["sentences"] if sentence["video_id"] in ids]
        (root / f"{name}.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    for split, clips in EXPECTED["msrvtt-full", "msrvtt"].items():
        found = DataSource(f"msrvtt-full:{root}").split(split)
        assert {clip.id: list(clip.captions) for clip in found.clips} == clips


# SPEC


def test_specs():
    spec = parse_spec("msrvtt-9k:/data/MSRVTT?videos=/v/all&held_out=500")
    assert (spec.name, spec.path, spec.videos, spec.subset, spec.held_out) == (
        "msrvtt-9k",
        Path("/data/MSRVTT"),
        Path("/v/all"),
        False,
        500,
    )
    assert spec.title == "msrvtt-9k?held_out=500"  # nothing of where it lies
    assert parse_spec("msvd:x?subset=yes").title == "msvd?subset=yes"
    for plain in ("my/data.jsonl", "C:/data", "a?b=c", Path("x")):
        assert (parse_spec(plain).name, parse_spec(plain).path) == (None, Path(plain))


def test_a_file_that_is_named_like_a_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old:set").mkdir()
    assert parse_spec("old:set").name is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("msrvt-9k:/data", "did you mean msrvtt-9k"),
        ("imagenet:/data", "known are msrvtt-9k, "),
        ("msvd:", "no folder is named; write msvd:DIR"),
        ("msvd:x?split=9k", "'split=9k' is no KEY=VALUE of videos, subset, held_out"),
        ("msvd:x?subset", "'subset' is no KEY=VALUE"),
        ("msvd:x?subset=1", "subset is '1'; write yes or no"),
        ("msvd:x?subset=yes&subset=no", "each once"),
        ("msvd:x?held_out=50", "msvd has a split val of its own"),
        ("msrvtt-9k:x?held_out=9000", "give a number below the 9000"),
        ("msrvtt-9k:x?held_out=-1", "held_out is '-1'"),
    ],
)
def test_a_wrong_spec_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("spec", "place", "expected"),
    [
        ("msrvtt-9k:data?held_out=500&videos=v", "/mnt/m", "msrvtt-9k:/mnt/m?held_out=500"),
        ("msrvtt-9k:data", "msvd:/mnt/m", "msvd:/mnt/m"),
        ("data", "/mnt/m", "/mnt/m"),
        ("data", "msvd:/mnt/m", "msvd:/mnt/m"),
    ],
)
def test_another_place_for_a_recipe(spec, place, expected):
    assert replace_place(spec, place) == expected
