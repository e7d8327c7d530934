import base64
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from vtr_export.model.config import AlignmentConfig, BackboneConfig, ModelConfig, TemporalConfig
from vtr_export.model.redraw import redraw_zero_parameters
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.pages.figures import svg_uri
from vtr_runtime.errors import DataError, OutputExistsError
from vtr_training.cli import main
from vtr_training.data.clip import Clip
from vtr_training.data.frame_cache import CachedFrames
from vtr_training.data.split import load_split
from vtr_training.embed import make_tokenizer
from vtr_training.loop import fit
from vtr_training.recipe import Recipe
from vtr_training.run_report import pictures
from vtr_training.run_report.confusions import find_mistakes, show, three_frames
from vtr_training.run_report.embeddings import embed_before_after
from vtr_training.run_report.gap import gap_figures
from vtr_training.run_report.run_folder import flat, read_run
from vtr_training.run_report.write import write_report

RNG = np.random.default_rng(0)
NASTY = "<script>alert('x')</script> & $x^{ “quoted”"


def run_command(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    fit(Recipe.model_validate({**settings, "steps": 20, "validation": {"every": 10, "metric": "rsum"}}), folder)
    (folder / "test.json").write_text(json.dumps(read_run(folder).summary["validation"]))
    return folder


@pytest.fixture(scope="module")
def nasty_data(demo, tmp_path_factory) -> Path:
    """The validation split with captions that are no harmless words."""
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    lines = [
        {**line, "video": str(demo / line["video"]), "captions": [f"{NASTY} {i}"]}
        for i, line in enumerate(line for line in lines if line["split"] == "val")
    ]
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


class Tags(HTMLParser):
    """Which elements a page has, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


# the page


def test_a_real_run_gives_one_page_that_needs_no_other_file(finished):
    written = write_report(finished)
    assert written.path == finished / "report.html"
    assert written.bytes == written.path.stat().st_size < 5e6
    text = written.path.read_text(encoding="utf-8")
    page = Tags(text)
    assert {"script", "link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.tags)
    assert not [attributes for _, attributes in page.tags if "href" in attributes or "srcset" in attributes]
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.named("img"))
    assert "url(" not in text
    assert "@import" not in text
    for source in (image["src"] for image in page.named("img") if "svg+xml" in image["src"]):
        drawing = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
        links = [value for node in drawing.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(link.startswith("#") for link in links)
    with pytest.raises(OutputExistsError):
        write_report(finished)


def test_the_page_shows_the_run(finished, tmp_path):
    write_report(finished, output=tmp_path / "page.html")
    page = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    summary = json.loads((finished / "summary.json").read_text())
    for words in (
        "Training curves",
        "Mined hard negatives",
        "Worst queries",
        "temporal mstdt, alignment dits",
        f"best.pt is of step {summary['best_step']} of 20",
        f"{summary['validation']['Rsum']:.1f}",
        f"{summary['parameters']['total']:,}",
        f"{summary['seconds_per_step']:.3f} s",
        "ceiling without order",
        "model.alignment.beta_start",
    ):
        assert words in text
    sheets = [image for image in page.named("img") if "jpeg" in image["src"]]
    assert len(sheets) == 2 * 2 * 8  # two sections of eight rows, right and wrong
    cells = [piece.strip() for piece in page.text]
    assert cells.count("validation") == cells.count("test") == 2 + 5  # both directions; five kinds of groups


def test_captions_are_escaped(finished, nasty_data, tmp_path):
    write_report(finished, data=nasty_data, output=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert not page.named("script")
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    assert any(NASTY in piece for piece in page.text)


def test_the_command(finished, tmp_path, capsys):
    assert run_command("report", finished, "--split", "test", "-o", tmp_path / "page.html", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["report"], said["split"], said["gap"]["pairs"]) == (str(tmp_path / "page.html"), "test", 20)
    assert run_command("report", finished, "-o", tmp_path / "page.html") == 2
    assert "exists already" in capsys.readouterr().err
    assert run_command("report", finished, "-o", tmp_path / "page.html", "--overwrite") == 0
    assert "MB" in capsys.readouterr().out
    assert run_command("report", tmp_path) == 1
    assert "is no run" in capsys.readouterr().err
    (tmp_path / "recipe.json").write_text("{}")
    assert run_command("report", tmp_path) == 1
    assert "not finished" in capsys.readouterr().err


def test_the_log_is_read_as_it_is(finished, tmp_path):
    assert [(line["kind"], line["step"]) for line in read_run(finished).log] == [
        ("train", 10),
        ("val", 10),
        ("train", 20),
        ("val", 20),
    ]
    for name in ("recipe.json", "summary.json"):
        shutil.copy(finished / name, tmp_path / name)
    assert read_run(tmp_path).log == ()
    (tmp_path / "log.jsonl").write_text('{"step": 1, "kind": "val", "rsum": 2.0}\n{"step": 2, "ki')
    assert read_run(tmp_path).log == ({"step": 1, "kind": "val", "rsum": 2.0},)


def test_flat_keys():
    assert dict(flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]})) == {"a.b": 1, "a.c.d": None, "e": [1]}


# embeddings


@pytest.mark.parametrize("gap", ["v-t", "t-v"])
def test_before_and_after_alignment(gap, settings, demo):
    config = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(settings["model"]["backbone"]),
        temporal=TemporalConfig(kind="mean"),
        alignment=AlignmentConfig(kind="dits", steps=2, blocks=1, heads=1, gap=gap),
    )
    torch.manual_seed(0)
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    split = load_split(demo, "val", config.frames, make_tokenizer(config), cache=Path(settings["data"]["cache"]))
    found = embed_before_after(model, split)
    ids = torch.from_numpy(np.array(split.ids)).long()
    pixels, mask = torch.from_numpy(np.array(split.frames.pixels)), torch.from_numpy(split.frames.mask)
    with torch.inference_mode():
        raw = model.text.backbone(ids).double().numpy()
        frames = model.video.encode_frames(pixels).double().numpy()
        text, video = model.text(ids).numpy(), model.video(pixels, mask).numpy()
    means = []
    for rows, real in zip(frames, split.frames.mask, strict=True):
        means.append(np.mean([row / np.linalg.norm(row) for row, true in zip(rows, real, strict=True) if true], axis=0))
    np.testing.assert_allclose(found.text_before, unit(raw), atol=1e-5)
    np.testing.assert_allclose(found.video_before, unit(np.array(means)), atol=1e-5)
    np.testing.assert_allclose(found.text_after, text, atol=1e-5)
    np.testing.assert_allclose(found.video_after, video, atol=1e-5)
    text_moved = abs(found.text_after - found.text_before).max()
    video_moved = abs(found.video_after - found.video_before).max()
    assert (text_moved > 0.1, video_moved > 0.1) == (gap == "v-t", gap == "t-v")
    assert found.scores_before[3, 2] == pytest.approx(sum(unit(raw)[3] * unit(np.array(means))[2]), abs=1e-5)
    assert found.gap.after.similarity[5] == pytest.approx(sum(text[5] * video[split.owners[5]]), abs=1e-5)


# the gap


def test_gap_figures_equal_the_loop():
    before_t, after_t, before_v, after_v = (RNG.normal(size=(7, 5)) for _ in range(4))
    found = gap_figures(before_t.astype(np.float32), after_t, before_v, 3 * after_v)
    cosines = {}
    for when, texts, videos in (("before", before_t.astype(np.float32), before_v), ("after", after_t, after_v)):
        l1, l2, mean = [], [], [0.0] * 5
        cosines[when] = []
        for t, v in zip(texts.tolist(), videos.tolist(), strict=True):
            t = [x / math.hypot(*t) for x in t]
            v = [x / math.hypot(*v) for x in v]
            delta = [b - a for a, b in zip(t, v, strict=True)]
            l1.append(sum(map(abs, delta)))
            l2.append(math.sqrt(sum(d * d for d in delta)))
            mean = [m + d / 7 for m, d in zip(mean, delta, strict=True)]
            cosines[when].append(sum(a * b for a, b in zip(t, v, strict=True)))
        expected = {
            "mean_l1": sum(l1) / 7,
            "mean_l2": sum(l2) / 7,
            "mean_gap_norm": math.hypot(*mean),
            "mean_similarity": sum(cosines[when]) / 7,
        }
        assert found.to_json()[when] == pytest.approx(expected, abs=1e-12)
        np.testing.assert_allclose(getattr(found, when).l2, l2, atol=1e-12)
    change = [b - a for a, b in zip(cosines["before"], cosines["after"], strict=True)]
    expected = {"min": min(change), "mean": sum(change) / 7, "max": max(change)}
    assert found.to_json()["change_of_similarity"] == pytest.approx(expected, abs=1e-12)
    assert found.to_json()["pairs"] == 7


def test_gap_figures_refuse_what_has_no_gap():
    good = RNG.normal(size=(3, 4))
    for bad in (good[:2], good[:, :3], np.zeros((3, 4)), np.full((3, 4), np.nan)):
        with pytest.raises(DataError):
            gap_figures(good, good, good, bad)
    with pytest.raises(DataError):
        gap_figures(*[np.zeros((0, 4))] * 4)


# mistakes


def test_mistakes_equal_the_loop():
    owners = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    videos = np.array([0, 1, 2, 0, 3])  # clips 0 and 3 are the same part of the same file
    scores = RNG.uniform(-1, 1, size=(8, 5))
    found = find_mistakes(scores, owners, videos)
    for i in range(8):
        wrong = max((j for j in range(5) if videos[j] != videos[owners[i]]), key=lambda j: scores[i, j])
        own = max(scores[row, wrong] for row in range(8) if owners[row] == wrong)
        hardness = max(0, scores[i, wrong] - scores[i, owners[i]]) + max(0, scores[i, wrong] - own)
        assert found.wrong[i] == wrong
        assert found.hardness[i] == pytest.approx(hardness)
        assert found.rank[i] == 1 + sum(scores[i, j] > scores[i, owners[i]] for j in range(5) if j != owners[i])
    margins = [scores[i, owners[i]] - scores[i, found.wrong[i]] for i in range(8)]
    assert found.by_hardness().tolist() == sorted(range(8), key=lambda i: margins[i])
    assert found.by_rank().tolist() == sorted(range(8), key=lambda i: -found.rank[i])
    with pytest.raises(DataError, match="the same video"):
        find_mistakes(scores, owners, np.zeros(5, np.int64))


def make_frames(clips=4, frames=5, size=6):
    made = tuple(Clip(Path(f"{i}.mp4"), (f"{NASTY} {i}", f"other {i}")[: 1 + i % 2], "val") for i in range(clips))
    pixels = RNG.integers(0, 256, (clips, frames, size, size, 3)).astype(np.uint8)
    return CachedFrames(made, pixels, np.ones((clips, frames), bool), (), Path("cache"))


def test_each_right_clip_is_shown_once_with_its_hardest_caption():
    frames, owners = make_frames(), np.array([0, 1, 1, 2, 3, 3])
    scores = np.full((6, 4), 0.1)
    scores[np.arange(6), owners] = [0.5, 0.3, 0.2, 0.6, 0.9, 0.4]
    scores[2, 3] = 0.7  # caption 2 of clip 1: clip 3 is ahead by 0.5
    scores[1, 0] = 0.4  # caption 1 of clip 1: ahead by 0.1
    mistakes = find_mistakes(scores, owners)
    first, second = show(mistakes, mistakes.by_hardness(), frames, owners, 2)
    assert (first.caption, first.right.video.name, first.wrong.video.name) == ("other 1", "1.mp4", "3.mp4")
    assert (first.right_score, first.wrong_score, first.rank) == (0.2, 0.7, 2)
    assert first.margin == pytest.approx(-0.5)
    np.testing.assert_array_equal(first.wrong_frames, frames.pixels[3][[0, 2, 4]])
    assert second.right.video.name == "3.mp4"  # caption 5, ahead by 0.3 of clips at 0.1
    assert len(show(mistakes, mistakes.by_rank(), frames, owners, 99)) == 4


@pytest.mark.parametrize(("valid", "shown"), [([0], [0]), ([0, 1], [0, 1]), ([0, 1, 2, 3], [0, 2, 3])])
def test_three_frames_are_real_ones(valid, shown):
    pixels = RNG.integers(0, 256, (6, 2, 2, 3)).astype(np.uint8)
    mask = np.isin(np.arange(6), valid)
    np.testing.assert_array_equal(three_frames(pixels, mask), pixels[shown])


# pictures


def test_curves_hold_the_log():
    log = [
        {"step": 10, "kind": "train", "loss": 3.0, "loss_bsl": 0.5, "grad_norm": 2.0, "rate": 0.1},
        {"step": 20, "kind": "train", "loss": 1.0, "loss_bsl": 0.25, "grad_norm": 1.0, "rate": 0.2},
        {"step": 20, "kind": "val", "t2v_r1": 40.0, "v2t_r1": 30.0, "rsum": 200.0, "group_r1_all": 0.5, "value": 2.0},
    ]
    drawn = {view.get_title(): view for view in pictures.curves(log, 20).axes if view.lines}
    found = {
        title: {line.get_label(): list(map(tuple, line.get_xydata())) for line in view.lines[:-1]}
        for title, view in drawn.items()
    }
    assert found == {
        "loss": {"total": [(10, 3), (20, 1)], "bsl": [(10, 0.5), (20, 0.25)]},
        "gradient norm": {"norm": [(10, 2), (20, 1)]},
        "learning rate, share of its peak": {"rate": [(10, 0.1), (20, 0.2)]},
        "validation R@1, %": {"text to video": [(20, 40)], "video to text": [(20, 30)]},
        "validation Rsum, %": {"first stage": [(20, 200)]},
        "R@1 within groups, text to video, %": {"all": [(20, 50)]},
    }
    assert {tuple(view.lines[-1].get_xdata()) for view in drawn.values()} == {(20, 20)}
    assert pictures.curves([], 1) is None


def test_histograms_hold_every_pair():
    matched, unmatched = RNG.normal(0.5, 0.1, 40), RNG.normal(0, 0.1, 300)
    view = pictures.similarities({"after": (matched, unmatched)}).axes[0]
    for name, values in (("matched pairs", matched), ("unmatched pairs", unmatched)):
        drawn = next(patch for patch in view.patches if patch.get_label() == name).get_data()
        inside = [sum(low <= v < high for v in values) for low, high in zip(drawn.edges, drawn.edges[1:], strict=False)]
        np.testing.assert_allclose(drawn.values, 100 * np.array(inside) / len(values))
        assert sum(inside) == len(values)


def test_a_gap_that_never_changes_can_be_drawn(tmp_path):
    same = np.ones((3, 4))
    pictures.draw_gap(gap_figures(same, same, same, same), tmp_path / "gap.png")
    with Image.open(tmp_path / "gap.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_the_same_figure_gives_the_same_bytes():
    values = RNG.normal(size=50), RNG.normal(size=50)
    one, other = (svg_uri(pictures.similarities({"after": values})) for _ in range(2))
    assert one == other
    assert b"matched pairs" in base64.b64decode(one.partition(",")[2])  # text, not outlines


def test_hard_negatives_are_drawn_whatever_the_captions_say(tmp_path):
    frames, owners = make_frames(), np.array([0, 1, 1, 2, 3, 3])
    mistakes = find_mistakes(RNG.uniform(size=(6, 4)), owners)
    shown = show(mistakes, mistakes.by_hardness(), frames, owners, 3)
    pictures.draw_hard_negatives(shown, tmp_path / "hard.png")
    with Image.open(tmp_path / "hard.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > picture.width / 2


def test_strips_put_frames_side_by_side():
    frames = np.stack([np.full((6, 6, 3), value, np.uint8) for value in (10, 120, 240)])
    pixels = np.asarray(pictures.strip(frames))
    step = pictures.SIDE + pictures.SEAM
    for i, value in enumerate((10, 120, 240)):
        assert (pixels[:, i * step : i * step + pictures.SIDE] == value).all()
    assert re.match(r"data:image/jpeg;base64,[\w+/=]+$", pictures.strip_uri(frames))
