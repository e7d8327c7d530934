"""The readers on the benchmarks' real annotation files, which have no licence to be committed.

VTR_ANNOTATIONS names them: the folder, or a .tar.xz archive of it, as docs/data-sets.md describes. What of a data set
is not there is written here in its layout around the real lists, in words of our own."""

import csv
import json
import os
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest

from vtr_runtime.errors import DataError
from vtr_training.check.leaks import find_shared
from vtr_training.data.source import DataSource, SplitClips, read_clips, shortfalls

pytestmark = pytest.mark.annotations


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> Path:
    given = os.environ.get("VTR_ANNOTATIONS")
    if not given:
        pytest.skip("set VTR_ANNOTATIONS to the benchmarks' annotation files (docs/data-sets.md)")
    path = Path(given)
    if path.is_dir():
        return path
    folder = tmp_path_factory.mktemp("annotations")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / "annotations"


def load(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


def link(folder: Path, *files: Path, **renamed: Path) -> Path:
    """A folder with links to files, under their own names or as `name_json=` says."""
    for file in files:
        (folder / file.name).symlink_to(file)
    for name, file in renamed.items():
        (folder / name.replace("__", ".")).symlink_to(file)
    return folder


def captions(found: SplitClips) -> dict[str, list[str]]:
    return {clip.id: list(clip.captions) for clip in found.clips}


def only_videos_missing(found: SplitClips) -> bool:
    said = shortfalls(found)
    return len(said) == 1 and said[0].startswith(f"{len(found.clips):,} of {len(found.clips):,} clips have no video")


# MSR-VTT


@pytest.fixture(scope="session")
def msrvtt(real, tmp_path_factory) -> Path:
    """The real lists around a MSRVTT_data.json of 10,000 videos with 20 captions each."""
    ids = [f"video{i}" for i in range(10_000)]
    parts = [("train", 6513), ("validate", 7010), ("test", 10_000)]
    videos = [
        {"video_id": name, "split": next(part for part, end in parts if i < end), "url": "", "id": i}
        for i, name in enumerate(ids)
    ]
    sentences = [{"caption": f"{name} said {i}", "video_id": name, "sen_id": i} for i in range(20) for name in ids]
    folder = tmp_path_factory.mktemp("msrvtt")
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    return link(folder, *(real / "msrvtt").glob("MSRVTT_*.csv"))


def test_msrvtt_1ka(real):
    source = DataSource(f"msrvtt-1ka:{real / 'msrvtt'}")
    assert only_videos_missing(source.split("test"))
    found = captions(source.split("test"))
    rows = [line.split(",", 3) for line in (real / "msrvtt/MSRVTT_JSFUSION_test.csv").read_text().splitlines()[1:]]
    assert found == {row[2]: [row[3]] for row in rows}  # no sentence is quoted
    texts = [text for [text] in found.values()]
    assert len(set(texts)) == 995
    assert sum(texts.count(text) > 1 for text in texts) == 9
    other = load(real / "msrvtt/samsung_jsfusion_val.json")
    said = {name: [text.strip() for text in entry["sentences"]] for name, entry in other.items()}
    assert sorted(found) == sorted(said) == sorted(lines(real / "msrvtt/ce_val_list_jsfusion.txt"))
    assert sum(found[name] == said[name] for name in found) >= 990


@pytest.mark.parametrize(("name", "train"), [("msrvtt-9k", 9_000), ("msrvtt-7k", 7_010)])
def test_msrvtt_lists(real, msrvtt, name, train):
    source = DataSource(f"{name}:{msrvtt}")
    found, tested = source.split("train"), source.split("test")
    assert only_videos_missing(found)
    assert only_videos_missing(tested)
    assert (len(found.clips), found.captions) == (train, 20 * train)
    ids, test = {clip.id for clip in found.clips}, {clip.id for clip in tested.clips}
    assert not ids & test
    assert ids <= set(lines(real / "msrvtt/ce_train_list_jsfusion.txt"))
    assert found.clips[5].captions == tuple(f"{found.clips[5].id} said {i}" for i in range(20))


def test_msrvtt_full_by_its_lists_and_by_its_own_field(msrvtt, tmp_path):
    listed = DataSource(f"msrvtt-full:{msrvtt}")
    own = DataSource(f"msrvtt-full:{link(tmp_path, msrvtt / 'MSRVTT_data.json')}")
    for split, count in (("train", 6_513), ("val", 497), ("test", 2_990)):
        found = listed.split(split)
        assert only_videos_missing(found)
        assert len(found.clips) == count
        assert captions(found) == captions(own.split(split))


def test_msrvtt_json(real, tmp_path):
    """The excerpt in the original's layout holds 60 of 497 validation videos; the others are reported one by one."""
    excerpt = real / "msrvtt/RECONSTRUCTED_MSRVTT_data.excerpt.json"
    folder = link(tmp_path, real / "msrvtt/MSRVTT_val.full.csv", MSRVTT_data__json=excerpt)
    source = DataSource(f"msrvtt-full:{folder}")
    found = captions(source.split("val"))
    said = load(real / "msrvtt/samsung_full_val.json")
    assert found == {name: [text.strip() for text in said[name]["sentences"]] for name in found}
    assert (len(found), len(source.split("val").faults)) == (60, 437)
    with pytest.raises(DataError, match=r"MSRVTT_val\.full\.csv|annotated where"):
        read_clips(f"msrvtt-full:{folder}", "val")


def test_msrvtt_whole(real, tmp_path):
    """With a file for every video nothing is missing."""
    folder = link(tmp_path, real / "msrvtt/MSRVTT_JSFUSION_test.csv")
    (folder / "all").mkdir()
    for name in lines(real / "msrvtt/ce_val_list_jsfusion.txt"):
        (folder / "all" / f"{name}.mp4").touch()
    assert len(read_clips(f"msrvtt-1ka:{folder}")) == 1_000


# MSVD


@pytest.mark.parametrize(
    ("split", "videos", "count"), [("train", 1_200, 48_774), ("val", 100, 4_290), ("test", 670, 27_763)]
)
def test_msvd(real, split, videos, count):
    source = DataSource(f"msvd:{real / 'msvd'}")
    assert only_videos_missing(source.split(split))
    found = source.split(split)
    assert (len(found.clips), found.captions) == (videos, count)
    said = load(real / f"msvd/samsung_{split}.json")
    assert captions(source.split(split)) == {name: [t.strip() for t in said[name]["sentences"]] for name in said}


def test_msvd_ids_begin_with_a_dash_and_case_counts(real):
    ids = [
        clip.id for split in ("train", "val", "test") for clip in DataSource(f"msvd:{real / 'msvd'}").split(split).clips
    ]
    assert any(name.startswith("-") for name in ids)
    assert len(set(ids)) == len(ids) == 1_970


def test_msvd_pickle(real, tmp_path):
    excerpt = real / "msvd/RECONSTRUCTED_raw-captions.excerpt.pkl"
    folder = link(tmp_path, *real.glob("msvd/*_list.txt"), **{"raw-captions__pkl": excerpt})
    pickled, whole = DataSource(f"msvd:{folder}"), DataSource(f"msvd:{real / 'msvd'}")
    found = {name: said for split in ("train", "val", "test") for name, said in captions(pickled.split(split)).items()}
    expected = {name: said for split in ("train", "val", "test") for name, said in captions(whole.split(split)).items()}
    assert len(found) == 80
    assert found == {name: [" ".join(text.split()) for text in expected[name]] for name in found}


def test_msvd_test_captions_are_shared_by_several_videos(real):
    """4,372 of the 27,763 test captions have words that another test video has too: ties without a right answer."""
    owners = defaultdict(set)
    found = captions(DataSource(f"msvd:{real / 'msvd'}").split("test"))
    for name, said in found.items():
        for text in said:
            owners[text].add(name)
    assert sum(len(owners[text]) > 1 for said in found.values() for text in said) == 4_372


# DiDeMo


@pytest.mark.parametrize(("split", "videos"), [("val", 1_065), ("test", 1_004)])
def test_didemo(real, split, videos):
    source = DataSource(f"didemo:{real / 'didemo'}")
    assert only_videos_missing(source.split(split))
    found = captions(source.split(split))
    assert len(found) == videos

    def letters(texts):
        return "".join("".join(texts).replace(".", "").split())

    said = load(real / f"didemo/samsung_{split}.json")  # with full stops added
    assert {name: letters(texts) for name, texts in found.items()} == {
        name: letters(entry["sentences"]) for name, entry in said.items()
    }


def test_didemo_train(real, tmp_path):
    """train_data.json, written again from the same sentences, with one video that no list has."""
    said = load(real / "didemo/samsung_train.json")
    items = [{"video": name, "description": text} for name, entry in said.items() for text in entry["sentences"]]
    assert len(items) == 32_724
    (tmp_path / "train_data.json").write_text(json.dumps([*items, {"video": "gone.mov", "description": "x"}]))
    source = DataSource(f"didemo:{link(tmp_path, real / 'didemo/train_list.txt')}")
    assert only_videos_missing(source.split("train"))
    assert captions(source.split("train")) == {
        name: [" ".join(text.strip() for text in said[name]["sentences"])]
        for name in lines(real / "didemo/train_list.txt")
    }


@pytest.mark.parametrize(("split", "videos"), [("train", 8_362), ("val", 1_062), ("test", 1_004)])
def test_didemo_of_tmass(real, split, videos):
    """Paragraphs hold line breaks: there are more lines than rows."""
    path = real / f"didemo/didemo_{split}_label.csv"
    assert path.read_bytes().count(b"\n") > videos + 1
    source = DataSource(f"didemo-tmass:{real / 'didemo'}")
    assert only_videos_missing(source.split(split))
    found = captions(source.split(split))
    assert len(found) == videos
    assert set(found) <= set(lines(real / f"didemo/{split}_list.txt"))
    assert not any("\n" in text or "  " in text for [text] in found.values())


# ActivityNet


def test_activitynet(real, tmp_path):
    folder = link(tmp_path, val_1__json=real / "activitynet/2dtan_val.json")
    names = lines(real / "activitynet/train_list.txt")
    train = {name: {"duration": 9.5, "timestamps": [[0, 1], [3, 2]], "sentences": [name, " two "]} for name in names}
    (folder / "train.json").write_text(json.dumps(train))
    source = DataSource(f"activitynet:{folder}")
    assert all(only_videos_missing(source.split(split)) for split in ("train", "test"))
    assert captions(source.split("train")) == {name: [f"{name} two"] for name in names}
    found = captions(source.split("test"))
    rows = map(json.loads, (real / "activitynet/pe2lr_val1.jsonl").read_text().splitlines())
    expected = {row["clip_id"]: [" ".join(text.strip() for text in row["text"])] for row in rows}
    assert found == expected
    assert (len(found), set(found)) == (4_917, set(lines(real / "activitynet/val_1_list.txt")))


def test_activitynets_other_validation_set_is_the_same_videos(real):
    val_1, val_2 = (set(lines(real / f"activitynet/val_{i}_list.txt")) for i in (1, 2))
    assert val_2 < val_1  # so it can select no model that is tested on val_1


# Charades, VATEX, TGIF


def test_charades(real, tmp_path):
    folder = link(tmp_path, real / "charades/Charades_v1_train.csv")
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"
    rows = [f'Y{i:04},S,Room,6,7,Yes,"One, then {i}.",,,,30.0\r\n' for i in range(1_863)]
    (folder / "Charades_v1_test.csv").write_bytes((header + "".join(rows)).encode())
    source = DataSource(f"charades:{folder}")
    assert all(only_videos_missing(source.split(split)) for split in ("train", "test"))
    with (real / "charades/Charades_v1_train.csv").open(newline="", encoding="utf-8") as stream:
        expected = {row["id"]: [row["script"].strip()] for row in csv.DictReader(stream)}
    assert captions(source.split("train")) == expected
    assert len(expected) == 7_985


def test_vatex(real, tmp_path):
    lists = {split: lines(real / f"vatex/{split}_list.txt") for split in ("train", "val", "test")}
    data = {name: {"enCap": [f"{name} {i}" for i in range(10)]} for names in lists.values() for name in names}
    (tmp_path / "vatex_data.json").write_text(json.dumps(data))
    source = DataSource(f"vatex:{link(tmp_path, *real.glob('vatex/*_list.txt'))}")
    for split, names in lists.items():
        found = source.split(split)
        assert only_videos_missing(found)
        assert list(captions(found)) == names


def test_vatexs_other_test_list_overlaps_with_val(real, tmp_path):
    """test1k5_sec_list.txt has 776 of the validation videos: a model chosen on val has seen half of that test."""
    folder = link(tmp_path, real / "vatex/val_list.txt", test_list__txt=real / "vatex/test1k5_sec_list.txt")
    names = {*lines(folder / "val_list.txt"), *lines(folder / "test_list.txt")}
    (folder / "vatex_data.json").write_text(json.dumps({name: {"enCap": ["x"]} for name in names}))
    source = DataSource(f"vatex:{folder}")
    [shared] = [one for one in find_shared({s: source.split(s).clips for s in ("val", "test")}) if one.problem]
    assert (shared.splits, len(shared.names)) == (("val", "test"), 776)


def test_tgif(real, tmp_path):
    """The real lists, and a real file of URLs and sentences: a model's outputs, one for each GIF, as tgif-v1.0.tsv."""
    outputs = real / "tgif/results-lstm-cnn-finetune-cvpr16.tsv"
    folder = link(tmp_path, real / "tgif/test.txt", real / "tgif/val.txt", **{"tgif-v1__0__tsv": outputs})
    source = DataSource(f"tgif:{folder}")
    found = captions(source.split("test"))
    rows = [line.split("\t") for line in outputs.read_text().splitlines()]
    assert found == {url.rsplit("/", 1)[1].removesuffix(".gif"): [text.strip()] for url, text in rows}
    assert len(found) == 11_360
    assert "11,360 captions are annotated where 34,101 are documented" in shortfalls(source.split("test"))
    assert len(source.split("val").faults) == 10_708  # listed, and no sentence is there
