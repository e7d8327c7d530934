"""`vtr-train evaluate` with its options, in this process."""

import json
import re

import numpy as np
import pytest
import torch

from vtr_export.model.checkpoint import load_checkpoint, save_checkpoint
from vtr_export.model.redraw import redraw_zero_parameters
from vtr_runtime.metrics import ranks
from vtr_training import report
from vtr_training.cli import main
from vtr_training.data.source import read_clips
from vtr_training.embed import embed_with_torch
from vtr_training.loop import build_model
from vtr_training.recipe import Recipe


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def words(printed):
    """Without the line breaks of long titles."""
    return " ".join(printed.split())


def save_model(settings, path, **parts):
    torch.manual_seed(0)
    model = build_model(Recipe.model_validate({**settings, "model": {**settings["model"], **parts}}).model)
    redraw_zero_parameters(model, 0)
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="module")
def dual(settings, tmp_path_factory):
    return save_model(settings, tmp_path_factory.mktemp("dual") / "best.pt")


@pytest.fixture(scope="module")
def two_stages(settings, tmp_path_factory):
    rerank = {"kind": "x-pool", "weight": 0.5}
    return save_model(settings, tmp_path_factory.mktemp("two") / "best.pt", rerank=rerank)


@pytest.fixture(scope="module")
def data(demo, tmp_path_factory):
    """Six test clips, three of them with a second caption, and eight training clips."""
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    chosen = [line for line in lines if line["split"] == "test"][:6] + lines[:8]
    assert {line["split"] for line in chosen} == {"test", "train"}
    for number, line in enumerate(chosen):
        line["video"] = str(demo / line["video"])
        if number < 3:
            line["captions"] = [*line["captions"], f"another sentence, number {number}"]
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, chosen)))
    return path


def test_per_query_lines_agree_with_the_figures(dual, data, tmp_path, capsys):
    lines = tmp_path / "queries.jsonl"
    assert run("evaluate", dual, "--data", data, "--per-query", lines, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["t2v"]["queries"], found["v2t"]["queries"], found["v2t_caption_groups"]["gallery"]) == (9, 6, 6)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["direction"] for row in rows] == ["t2v"] * 9 + ["v2t"] * 6
    split = embed_with_torch(load_checkpoint(dual).model, read_clips(data, "test"))
    scores = split.text.astype(float) @ split.video.astype(float).T
    captions = [caption for clip in split.clips for caption in clip.captions]
    for text, row in enumerate(rows[:9]):
        owner = int(split.owners[text])
        wrong = max((clip for clip in range(6) if clip != owner), key=lambda clip, text=text: scores[text, clip])
        assert (row["caption"], row["clip"]["video"]) == (captions[text], str(split.clips[owner].video))
        assert row["wrong_clip"]["video"] == str(split.clips[wrong].video)
        assert row["score"] == pytest.approx(scores[text, owner])
        assert row["margin"] == pytest.approx(scores[text, owner] - scores[text, wrong])
    for clip, row in enumerate(rows[9:]):
        own = [text for text in range(9) if split.owners[text] == clip]
        wrong = max((text for text in range(9) if text not in own), key=lambda text, clip=clip: scores[text, clip])
        assert row["caption"] == captions[max(own, key=lambda text, clip=clip: scores[text, clip])]
        assert row["wrong_caption"] == captions[wrong]
        assert row["wrong_clip"]["video"] == str(split.clips[int(split.owners[wrong])].video)
    for name, part in (("t2v", rows[:9]), ("v2t", rows[9:])):
        assert found[name]["MnR"] == pytest.approx(np.mean([row["rank"] for row in part]))
        assert found[name]["optimistic"]["MnR"] == pytest.approx(np.mean([row["optimistic_rank"] for row in part]))
        assert found[name]["pessimistic"]["MnR"] == pytest.approx(np.mean([row["pessimistic_rank"] for row in part]))


def test_tables_put_raw_figures_first(two_stages, data, capsys):
    assert run("evaluate", two_stages, "--data", data, "--post", "dsl", "--top-k", "3", "--leak-check") == 0
    out = words(capsys.readouterr().out)
    places = [out.index(text) for text in (str(two_stages), "Second stage: the first stage's top 3", "DSL at", "leak ")]
    assert places == sorted(places)
    assert "transductive: sees all queries at once; not comparable with raw figures" in out
    assert "video to text, caption groups" in out
    assert "pairs keep their scores" in out


def test_second_stage_changes_the_top_alone(two_stages, data, tmp_path, capsys):
    lines = tmp_path / "queries.jsonl"
    assert run("evaluate", two_stages, "--data", data, "--top-k", "2", "--per-query", lines, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    raw, second = ([row for row in rows if row["ranking"] == name] for name in ("raw", "second-stage"))
    assert len(raw) == len(second) == 15
    for before, after in zip(raw, second, strict=True):
        # Who stood in the first two may change places with a neighbour; nobody else moves.
        assert before["rank"] == after["rank"] or max(before["rank"], after["rank"]) <= 2
    assert [row["score"] for row in raw] != [row["score"] for row in second]
    mean = np.mean([row["rank"] for row in second if row["direction"] == "t2v"])
    assert found["rescored"]["second-stage"]["t2v"]["MnR"] == pytest.approx(mean)


def test_query_bank_of_the_training_captions(dual, data, capsys):
    assert run("evaluate", dual, "--data", data, "--post", "qb-norm", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    split = embed_with_torch(load_checkpoint(dual).model, read_clips(data, "test"))
    train = embed_with_torch(load_checkpoint(dual).model, read_clips(data, "train"))
    text, video, bank = (rows.astype(float) for rows in (split.text, split.video, train.text))
    scores, other = text @ video.T, bank @ video.T
    active = np.isin(scores.argmax(axis=1), other.argmax(axis=1))
    changed = np.where(active[:, None], np.log(np.exp(20 * scores) / np.exp(20 * other).sum(axis=0)) / 20, scores)
    expected = ranks(changed, split.owners[:, None] == np.arange(6), tolerance=1e-5)
    assert found["rescored"]["qb-norm"]["t2v"]["MnR"] == pytest.approx(expected.mean.mean())
    assert f"{len(bank)} of {len(bank)} training captions" in found["rescored"]["qb-norm"]["title"]


def test_a_dual_encoder_has_nothing_to_leak(dual, data, capsys):
    assert run("evaluate", dual, "--data", data, "--leak-check") == 0
    assert "nothing can leak" in capsys.readouterr().out
    assert run("evaluate", dual, "--data", data, "--leak-check", "--json") == 0
    assert json.loads(capsys.readouterr().out)["leak_check"] == {"found": False, "pairs": 0, "differences": {}}


def test_a_leak_ends_with_1(two_stages, data, monkeypatch, capsys):
    def leaky(model, split, wanted):  # noqa: ARG001
        shift = np.arange(len(split.clips), dtype=np.float32)  # a score that depends on the place in the gallery
        return np.where(wanted, split.text @ split.video.T + shift, np.nan).astype(np.float32)

    monkeypatch.setattr(report, "second_stage_scores", leaky)
    assert run("evaluate", two_stages, "--data", data, "--leak-check") == 1
    said = capsys.readouterr()
    assert "text to video" in said.out
    assert "sees more than the pair" in said.err


def test_a_run_stands_for_its_best_checkpoint_and_keeps_the_result(dual, data, tmp_path, capsys):
    save_checkpoint(tmp_path / "best.pt", load_checkpoint(dual).model)
    assert run("evaluate", tmp_path, "--data", data, "--json") == 0
    assert json.loads((tmp_path / "test.json").read_text()) == json.loads(capsys.readouterr().out)


def test_a_bundle_takes_a_query_bank_and_no_second_stage(small_bundle, data, capsys):
    assert run("evaluate", small_bundle, "--data", data, "--top-k", "5") == 2
    assert "not exported yet" in capsys.readouterr().err
    assert run("evaluate", small_bundle, "--data", data, "--post", "qb-norm", "--leak-check") == 0
    out = words(capsys.readouterr().out)
    assert re.search(r"QB-Norm with (\d+) of \1 training captions", out)
    assert "nothing can leak" in out


def test_ties_are_shown_where_they_matter(dual, data, monkeypatch, capsys):
    monkeypatch.setattr("vtr_training.rankings.cosines", lambda text, video: np.zeros((len(text), len(video))))
    assert run("evaluate", dual, "--data", data) == 0
    assert "16.7 (100.0..0.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--top-k", "5"], "has no second stage"),
        (["--top-k", "0"], "--top-k"),
        (["--post", "qb-norm", "--split", "train"], "which are the queries"),
        (["--post", "sinkhorn"], "--post"),
        (["--per-query", "{tmp}/absent/queries.jsonl"], "is not a folder"),
        (["--per-query", "{tmp}/there.jsonl"], "exists already; give --per-query another name"),
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_embedded(
    dual, data, tmp_path, options, sentence, monkeypatch, capsys
):
    monkeypatch.setattr(report, "embed_with_torch", lambda *_, **__: pytest.fail("embedded"))
    (tmp_path / "there.jsonl").write_text("mine")
    assert run("evaluate", dual, "--data", data, *[option.format(tmp=tmp_path) for option in options]) == 2
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "there.jsonl").read_text() == "mine"
