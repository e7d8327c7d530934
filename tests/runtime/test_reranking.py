"""The second stage of a search against PyTorch's, from clips and sentences on: what `vtr-train evaluate` reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vtr_runtime import load
from vtr_runtime.cli import main
from vtr_runtime.errors import ConfigError, UsageError
from vtr_runtime.index import Index
from vtr_runtime.reranking import search_again, serving_tagger

if TYPE_CHECKING:
    from vtr_runtime.model import Model

TEXTS = ("a brown dog runs after the red ball", "of the", "men play football in a very large stadium", "")
BACKBONE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def made(good_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoint, bundle, embeddings of clips by windows and their index."""
    import torch

    from vtr_export import ExportPlan, export
    from vtr_export.model import BackboneConfig, ModelConfig, RerankConfig, RetrievalModel
    from vtr_export.model.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("rerank")
    torch.manual_seed(0)
    backbone = BackboneConfig.from_open_clip(BACKBONE)
    rerank = RerankConfig(kind="token-wise", weight=0.7)
    model = RetrievalModel(ModelConfig.from_backbone(backbone, frames=4, rerank=rerank)).eval()
    save_checkpoint(folder / "best.pt", model)
    export(ExportPlan(output=folder / "bundle", checkpoint=folder / "best.pt", rerank=True))
    clips = [str(clip) for clip in good_clips]
    words = ("-o", folder / "x.parquet", "--window", 1, "--stride", 0.5)
    assert vtr("embed", folder / "bundle", *clips, *words).exit_code == 0
    assert vtr("index", folder / "bundle", folder / "x.parquet", "-o", folder / "x.vtri").exit_code == 0
    return folder


@pytest.fixture(scope="module")
def model(made: Path) -> Model:
    return load(made / "bundle", threads=1)


def vtr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_search_ranks_as_the_evaluation_does(made: Path, model: Model) -> None:
    from vtr_export.model.checkpoint import load_checkpoint
    from vtr_training.data.clip import Clip
    from vtr_training.embed import embed_with_torch
    from vtr_training.second_stage import second_stage_ranking

    index = Index(made / "x.vtri")
    rows = index.hits(np.arange(index.count), np.zeros(index.count))
    clips = [
        Clip(hit.path, TEXTS if number == 0 else (), "test", hit.start, hit.end) for number, hit in enumerate(rows)
    ]
    torch_model = load_checkpoint(made / "best.pt").model
    split = embed_with_torch(torch_model, clips, tokens=True)
    top = index.count - 2
    want = second_stage_ranking(torch_model, split, top).forward
    first = split.text.astype(np.float64) @ split.video.T
    changed = 0
    for number, hits in enumerate(search_again(model, index, list(TEXTS), top)):
        assert len(hits) == top
        scores = {hit.id: hit.score for hit in hits}
        # Frames' embeddings are kept in float16.
        assert scores == {row: pytest.approx(want[number, row], abs=2e-3) for row in np.argsort(-want[number])[:top]}
        assert [hit.score for hit in hits] == sorted(scores.values(), reverse=True)
        changed += [hit.id for hit in hits] != np.argsort(-first[number])[:top].tolist()
    assert changed > 0  # or the first stage alone would pass


def test_words_that_matter_count_double(made: Path, model: Model) -> None:
    frames = Index(made / "x.vtri").frames_of(np.arange(3))
    tokens = model.tokenizer.tokens(TEXTS[0])
    words = [tokens.cleaned[start:end] for start, end in tokens.spans]
    weights = np.ones(77, np.float32)
    for place, word in enumerate(words, 1):
        weights[place] = 2 if word in ("brown", "dog", "runs", "red", "ball") else 1
    assert weights.sum() == 77 + 5
    found = model.rerank(TEXTS[0], frames)
    assert np.array_equal(found, model.rerank(TEXTS[0], frames, word_weights=weights))
    plain = model.rerank(TEXTS[0], frames, word_weights=np.ones(len(words) + 2, np.float32))
    assert np.abs(found - plain).max() > 1e-5


def test_many_candidates_are_scored_as_few(made: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Index(made / "x.vtri").frames_of(np.arange(5))
    whole = model.rerank(TEXTS[0], frames)
    monkeypatch.setattr("vtr_runtime.reranking.CANDIDATES_AT_ONCE", 2)
    assert np.abs(model.rerank(TEXTS[0], frames) - whole).max() < 1e-6
    assert model.rerank(TEXTS[0], frames[:0]).shape == (0,)


def test_what_cannot_be_scored_is_refused(made: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Index(made / "x.vtri").frames_of(np.arange(2))
    with pytest.raises(UsageError, match=r"must be \[K, 4, 32\], not \[2, 3, 32\]"):
        model.rerank("a dog", frames[:, :3])
    with pytest.raises(UsageError, match="no frame that is not masked"):
        model.rerank("a dog", np.zeros_like(frames))
    with pytest.raises(UsageError, match="1 word weights were given for 4 tokens"):
        model.rerank("a dog", frames, word_weights=np.ones(1, np.float32))
    manifest = model.manifest
    graphs = manifest.graphs.model_copy(update={"rerank": None})
    without = manifest.model_copy(update={"graphs": graphs, "rerank": None})
    monkeypatch.setattr(model, "bundle", replace(model.bundle, manifest=without))
    with pytest.raises(UsageError, match="no second stage"):
        model.rerank("a dog", frames)
    with pytest.raises(UsageError, match="no second stage"):
        search_again(model, Index(made / "x.vtri"), ["a dog"], 5)


def test_without_a_tagger_it_says_what_to_install(made: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Index(made / "x.vtri").frames_of(np.arange(2))
    serving_tagger.cache_clear()
    monkeypatch.setattr("vtr_runtime.parts_of_speech.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'vtr-runtime\[rerank\]'"):
        model.rerank("a dog", frames)
    assert model.rerank("a dog", frames, word_weights=np.ones(77, np.float32)).shape == (2,)


def test_from_the_command_line(made: Path, model: Model) -> None:
    done = vtr("search", made / "bundle", made / "x.vtri", TEXTS[0], "--json", "--rerank", 6, "-k", 4)
    assert done.exit_code == 0, done.stderr
    assert "parts of speech: by " in done.stderr
    [answer] = json.loads(done.stdout)
    [want] = search_again(model, Index(made / "x.vtri"), [TEXTS[0]], 6)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in want][:4]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in want][:4])
    by_file = vtr("search", made / "bundle", made / "x.vtri", TEXTS[0], "--json", "--moments", 2, "--rerank")
    [answer] = json.loads(by_file.stdout)
    paths = [hit["path"] for hit in answer["hits"]]
    assert len(set(paths)) == 3
    assert paths == sorted(paths, key=paths.index)
    from_parquet = vtr("search", made / "bundle", made / "x.parquet", TEXTS[0], "--json", "--moments", 2, "--rerank")
    assert json.loads(from_parquet.stdout) == [answer]


def test_what_the_command_refuses(made: Path, tmp_path: Path) -> None:
    search = ("search", made / "bundle", made / "x.vtri")
    for words, message in (
        (("a dog", "-k", 7, "--rerank", 5), "give --rerank 7"),
        (("--video", "x.mp4", "--rerank"), "cannot be used with --video"),
    ):
        done = vtr(*search, *words)
        assert done.exit_code == 2
        assert message in done.stderr
    bare = tmp_path / "bare.vtri"
    assert vtr("index", made / "bundle", made / "x.vtri", "-o", bare, "--no-frames").exit_code == 0
    assert bare.stat().st_size < (made / "x.vtri").stat().st_size
    done = vtr("search", made / "bundle", bare, "a dog", "--rerank")
    assert done.exit_code == 2
    assert "keeps no frames' embeddings" in done.stderr
