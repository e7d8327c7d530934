"""`vtr-train check`: each part against what is known otherwise, then the command on a small benchmark of real files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from open_clip.tokenizer import SimpleTokenizer

from vtr_runtime.manifest import FrameSpec, TextSpec
from vtr_training.check.cost import Cost, _line, measure_cost
from vtr_training.check.decoding import try_decoding
from vtr_training.check.leaks import find_shared
from vtr_training.check.lengths import measure_lengths
from vtr_training.cli import main
from vtr_training.data.clip import Clip
from vtr_training.data.source import read_clips
from vtr_training.loop import build_model
from vtr_training.recipe import Recipe


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def clip(video: Path, name: str = "", **fields) -> Clip:
    return Clip(video, ("x",), "train", id=name or video.stem, **fields)


# What splits share


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    contents = {"a": b"one film", "copy": b"one film", "other": b"two film", "longer": b"three films"}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    return {name: tmp_path / f"{name}.mp4" for name in contents}


def test_the_same_file_in_two_splits(files, tmp_path):
    (tmp_path / "link.mp4").symlink_to(files["a"])
    splits = {"train": [clip(files["a"]), clip(files["longer"])], "test": [clip(tmp_path / "link.mp4")]}
    shared = find_shared(splits)
    assert [(one.what, one.splits, one.names, one.problem) for one in shared if one.what == "the same file"] == [
        ("the same file", ("train", "test"), ("link",), True)
    ]


def test_a_copy_under_another_name(files):
    """`copy` has the bytes of `a`; `other` only as many."""
    splits = {"train": [clip(files["a"]), clip(files["other"])], "test": [clip(files["copy"]), clip(files["longer"])]}
    [shared] = find_shared(splits)
    assert (shared.what, shared.names, shared.problem) == ("another file of the same bytes", ("copy",), True)
    assert shared.sentence == "1 clip(s) of test are in train too, as another file of the same bytes: copy"
    [within] = find_shared({"train": [clip(files["a"]), clip(files["copy"])]})
    assert (within.splits, within.names, within.problem) == (("train", "train"), ("copy",), False)


def test_a_clip_that_is_listed_twice(files):
    [shared] = find_shared({"train": [clip(files["a"], "one"), clip(files["other"]), clip(files["a"], "two")]})
    assert (shared.what, shared.names, shared.problem) == ("the same file", ("two",), False)


def test_other_parts_of_a_file_are_other_clips(files):
    first, second = clip(files["a"], start=0.0, end=5.0), clip(files["a"], start=5.0, end=9.0)
    assert find_shared({"train": [first], "test": [second]}) == []
    assert find_shared({"train": [first], "test": [first]})[0].problem


def test_a_common_source_is_no_problem_and_said(files):
    splits = {"train": [clip(files["a"], source="yt1")], "test": [clip(files["longer"], source="yt1")]}
    [shared] = find_shared(splits)
    assert (shared.what, shared.names, shared.problem) == ("another part of the same source", ("longer",), False)
    assert find_shared({"train": [clip(files["a"])], "test": [clip(files["longer"])]}) == []
    assert find_shared({"train": [clip(Path("gone"))], "test": [clip(Path("gone too"))]}) == []


# Captions


def test_lengths_are_open_clips(tmp_path):
    """Tokens by open_clip's own tokenizer, start and end added."""
    captions = [
        "a dog",
        "two dogs run over a field",
        "a " * 60,
        "naïve 3d café",
        "A  dog ",
        "word " * 74 + "ok",
        "x " * 76,
    ]
    clips = [Clip(tmp_path, (text,), "train", id=str(i)) for i, text in enumerate(captions)]
    counts = [len(SimpleTokenizer().encode(" ".join(text.split()))) + 2 for text in captions]
    assert sorted(counts)[-2:] == [77, 78]
    found = measure_lengths(clips, TextSpec())
    assert (found.longest, found.median) == (78, np.median(counts))
    assert found.truncated == 1  # the one of 77 just fits
    assert found.shared == 2  # "a dog", whatever its case and blanks
    assert measure_lengths(clips, TextSpec(context_length=8)).truncated == sum(count > 8 for count in counts)


def test_captions_that_cannot_be_tokenized_are_named(tmp_path):
    clips = [
        Clip(tmp_path, ("fine", "half a \ud800 pair"), "train", id="bad"),
        Clip(tmp_path, ("ok",), "train", id="x"),
    ]
    found = measure_lengths(clips, TextSpec())
    assert len(found.refused) == 1
    assert found.refused[0].startswith("bad: ")
    assert found.longest == 3


# Decoding


def test_decoding_a_sample_spread_over_the_list(demo, tmp_path):
    good = read_clips(demo, "test")[:4]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    clips = [clip(tmp_path / "broken.mp4"), *good, clip(tmp_path / "absent.mp4")]
    spec = FrameSpec(size=32)
    everything = try_decoding(clips, spec, sample=None, seconds=60)
    assert (everything.tried, everything.of, len(everything.unreadable), everything.damaged) == (6, 6, 2, ())
    assert "broken.mp4" in everything.unreadable[0]
    assert "absent.mp4" in everything.unreadable[1]
    ends = try_decoding(clips, spec, sample=2, seconds=60)
    assert (ends.tried, ends.unreadable) == (2, everything.unreadable)
    late = try_decoding(good[:1], spec, sample=24, seconds=0.001)
    assert "took longer than 0.001 s" in late.unreadable[0]
    assert late.tried == 1


# Cost


def test_a_straight_line_through_the_two_largest():
    assert _line({2: 1.0, 4: 2.5, 8: 5.0}, 16) == 10.0
    assert _line({2: 1.0, 4: 2.5}, 4) == 2.5
    assert _line({2: 3.0}, 8) == 12.0
    assert _line({2: 3.0, 4: 2.9}, 8) == 2.9  # noise does not make larger batches cheaper


@pytest.fixture(scope="module")
def costs(settings) -> tuple[Recipe, Cost, Cost]:
    """Batches of 16: measured, and extrapolated from 2 and 4."""
    recipe = Recipe.model_validate({**settings, "batches": {"size": 16}})
    captions = ["a small red dot moves to the left"]
    return recipe, measure_cost(recipe, captions, budget=120), measure_cost(recipe, captions, budget=0)


def test_extrapolated_activations_are_those_of_the_full_batch(costs):
    _, whole, part = costs
    assert (list(whole.measured), whole.extrapolated) == ([2, 4, 8, 16], False)
    assert (list(part.measured), part.extrapolated) == ([2, 4], True)
    assert part.activation_bytes == pytest.approx(whole.activation_bytes, rel=0.05)
    assert whole.activation_bytes > 16 * 12 * 3 * 32 * 32 * 4  # at least the normalised frames in float32
    assert min(whole.step_seconds, part.step_seconds) > 0


def test_memory_of_weights_and_optimizer(costs, settings):
    recipe, whole, _ = costs
    model = build_model(recipe.model)
    numbers = sum(value.numel() for value in model.parameters())
    assert whole.weight_bytes == 4 * numbers
    assert whole.state_bytes == 12 * numbers  # gradient, two moments
    assert whole.memory_bytes == whole.weight_bytes + whole.state_bytes + whole.activation_bytes
    frozen = Recipe.model_validate({**settings, "batches": {"size": 4}, "optim": {"freeze": ["image", "text"]}})
    head = measure_cost(frozen, ["a dot"], budget=120)
    trained = sum(v.numel() for part in (model.video.temporal, model.text.alignment) for v in part.parameters())
    assert head.state_bytes == pytest.approx(12 * trained, rel=0.01)
    assert 4 * head.activation_bytes < whole.activation_bytes / 3  # a quarter of the batch, and no image tower


def test_settings_that_save_memory_are_counted(settings):
    """A chunk keeps what a batch of its size keeps; checkpointed blocks keep their inputs, which are counted too."""
    vision = {"image_size": 32, "layers": 4, "width": 32, "patch_size": 8, "head_width": 16}
    backbone = {**settings["model"]["backbone"], "vision_cfg": vision}
    vit = {**settings, "model": {**settings["model"], "backbone": backbone}}

    def cost(**changed):
        return measure_cost(Recipe.model_validate({**vit, "batches": {"size": 8}, **changed}), ["a dot"], budget=120)

    whole, four = cost(), cost(batches={"size": 4})
    chunked = cost(batches={"size": 8, "chunk": 4}, optim={**settings["optim"], "ema": 0.9})
    assert chunked.activation_bytes == four.activation_bytes
    assert chunked.weight_bytes == 2 * whole.weight_bytes
    assert (chunked.state_bytes, list(chunked.measured)) == (whole.state_bytes, [2, 4, 8])
    recomputed = cost(checkpointing=True)
    inputs = 8 * 12 * 17 * 32 * 4 * vision["layers"]  # float32 tokens before each block of the image tower
    assert inputs < recomputed.activation_bytes < whole.activation_bytes / 2


# The command


@pytest.fixture
def config(settings, tmp_path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(settings))
    return path


def test_a_whole_data_set_passes(config, demo, capsys):
    assert run("check", config, "--decode", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: split["videos"] for name, split in found["splits"].items()} == {"train": 32, "val": 16, "test": 20}
    assert all(split["decoded"]["tried"] == 2 for split in found["splits"].values())
    assert (found["problems"], found["splits"]["train"]["absent"]) == ([], [])
    assert found["cache_bytes"] == (32 + 16) * 12 * 32 * 32 * 3
    captions = found["splits"]["train"]["captions"]
    assert found["steps_a_pass"] == {"clips": 32 // 8, "captions": captions // 8}
    assert found["cost"]["step_seconds"] > 0
    assert run("check", config, "--data", demo, "--decode", "0", "--no-cost") == 0
    said = capsys.readouterr().out
    assert "none tried" in said
    assert f"next: vtr-train fit {config} --set data.spec={demo} -o RUN" in said.replace("\n", " ").replace("  ", " ")


@pytest.fixture(scope="module")
def benchmark(demo, tmp_path_factory) -> Path:
    """A folder in MSR-VTT's layout: nine training and two test videos of the generated ones, renamed; of the training
    videos one is absent, one broken, and one is the file of a test video again."""
    folder = tmp_path_factory.mktemp("MSRVTT")
    videos = [found.video for found in read_clips(demo, "test")[:10]]
    (folder / "all").mkdir()
    for number, video in enumerate(videos):
        shutil.copy(video, folder / "all" / f"video{number}.mp4")
    (folder / "all/video1.mp4").write_bytes(b"broken")
    shutil.copy(folder / "all/video9.mp4", folder / "all/video2.mp4")
    (folder / "all/video3.mp4").unlink()
    shutil.copy(videos[0], folder / "all/video8.mp4")
    (folder / "all/video0.mp4").write_bytes((folder / "all/video4.mp4").read_bytes() + b"\0")
    entries = [{"video_id": f"video{i}", "split": "train", "url": ""} for i in range(10)]
    said = [{"video_id": f"video{i}", "caption": f"thing {i} moves, way {j}"} for i in range(8) for j in range(2)]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": entries, "sentences": said}))
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{i}\n" for i in range(8)))
    test = "".join(f"r{i},m{i},video{i},thing {i} moves\n" for i in (8, 9))
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\n" + test)
    return folder


def test_everything_that_is_wrong_is_said(config, benchmark, capsys):
    assert run("check", config, "--data", f"msrvtt-9k:{benchmark}", "--decode", "all", "--no-cost", "--json") == 1
    output = capsys.readouterr()
    found = json.loads(output.out)
    train = found["splits"]["train"]
    assert (train["videos"], train["with_video"], train["absent"]) == (8, 7, ["video3"])
    assert train["documented"] == {"videos": 9000, "captions": 180000}
    assert train["decoded"]["tried"] == 7
    problems = "\n".join(found["problems"])
    for sentence in (
        "data.val: msrvtt-9k:",
        "batches.size is 8 and 7 training clips are there",
        "1 clip(s) of test are in train too, as another file of the same bytes: video9",
        "train: 1 of 8 clips have no video: video3",
        "train: 8 videos are annotated where 9,000 are documented",
        "train: 16 captions are annotated where 180,000 are documented",
        "video1.mp4 cannot be read as a video",
        "test: 2 videos are annotated where 1,000 are documented",
    ):
        assert problems.count(sentence) == 1, sentence
    assert len(found["problems"]) == 9
    assert "error: 9 problem(s)" in output.err


def test_a_subset_that_is_asked_for_has_no_problem_in_what_it_lacks(config, benchmark, tmp_path, capsys):
    root = Path(shutil.copytree(benchmark, tmp_path / "MSRVTT"))
    (root / "all/video2.mp4").unlink()  # the leak
    spec = f"msrvtt-9k:{root}?subset=yes&held_out=1"
    assert run("check", config, "--data", spec, "--decode", "all", "--no-cost", "--set", "batches.size=4") == 0
    said = capsys.readouterr().out
    assert "+ 1 held out" in said
    assert said.count("note: train: unreadable: ") + said.count("note: val: unreadable: ") == 1
    assert "problem: " not in said


def test_a_wrong_use_of_check(config, tmp_path, capsys):
    assert run("check", config, "--decode", "some") == 2
    assert "neither a number nor all" in capsys.readouterr().err
    assert run("check", config, "--data", "msrvt:x") == 2
    assert run("check", config, "--data", tmp_path / "none", "--no-cost") == 1
    assert run("check", tmp_path / "none.toml") == 2


def test_a_recipe_that_selects_on_test_is_told(config, capsys):
    assert run("check", config, "--set", "data.val=test", "--decode", "0", "--no-cost") == 0
    assert "note: best.pt is chosen on the test split" in capsys.readouterr().out
    assert run("check", config, "--set", "data.val=train", "--decode", "0", "--no-cost") == 1
    assert "data.val is the training split" in capsys.readouterr().out


# The same SPEC everywhere


def test_a_benchmarks_spec_trains_and_evaluates(config, benchmark, tmp_path, capsys):
    """Absent and unreadable clips: listed once, skipped, counted."""
    config.write_text(config.read_text().replace("groups_from = 0.5", ""))
    keys = {"data.spec": f"msrvtt-9k:{benchmark}?subset=yes&held_out=2", "steps": 2, "batches.size": 3}
    keys |= {"validation.metric": "rsum", "model.sampling": "fps1"}
    overrides = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    assert run("fit", config, *overrides, "--no-report", "-o", tmp_path / "run", "--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["skipped"] == 2
    assert output.err.count("skipped: ") == 2
    assert output.err.count("video3 does not exist") == output.err.count("video1.mp4 cannot be read") == 1
    best = tmp_path / "run" / "best.pt"
    assert run("evaluate", best, "--data", f"msrvtt-1ka:{benchmark}", "--json") == 1
    assert "2 captions are annotated where 1,000 are documented" in capsys.readouterr().err
    assert run("evaluate", best, "--data", f"msrvtt-1ka:{benchmark}?subset=yes", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["t2v"]["queries"], found["v2t"]["gallery"]) == (2, 2)
