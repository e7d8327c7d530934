"""Which split is ranked: a generated one, none, the user's own; read once for all, and what cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vtr_conformance.cli import main
from vtr_conformance.hosts import RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.hosts.torch import TorchHost
from vtr_conformance.retrieval import compare_rankings
from vtr_conformance.run import run
from vtr_conformance.split import GROUPS, PLAIN, embed_split, generated_split, read_split
from vtr_runtime.errors import BackendError, DataError, MediaError
from vtr_runtime.model import Model


class Counting(RuntimeHost):
    """Remembers the batches of each graph, and raises in the batch of clips number `fails`."""

    def __init__(self, model: Model, fails: int | None = None) -> None:
        super().__init__(model)
        self.fed: dict[str, list[Arrays]] = {"video": [], "text": []}
        self.fails = fails

    def run(self, graph: str, feed: Arrays) -> Arrays:
        if graph == "video" and len(self.fed[graph]) == self.fails:
            raise BackendError("out of memory")
        self.fed[graph].append(feed)
        return super().run(graph, feed)


@pytest.fixture(scope="module")
def reference(small_checkpoint: Path, small_model: Model) -> TorchHost:
    return TorchHost(small_checkpoint, small_model.bundle)


def write_data(folder: Path, clips: list[Path], captions: int = 1) -> str:
    lines = [
        {"video": str(clip), "captions": [f"take {n} of {clip.name}" for n in range(captions)], "split": "test"}
        for clip in clips
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_the_generated_split_is_small_and_always_the_same() -> None:
    texts = []
    for _ in range(2):
        with generated_split() as chosen:
            assert (chosen.data, chosen.split, len(chosen.clips)) == ("generated", "test", 4 * GROUPS + PLAIN)
            assert all(clip.video.is_file() for clip in chosen.clips)
            texts.append([(clip.video.name, clip.captions) for clip in chosen.clips])
        assert not chosen.clips[0].video.exists()
    assert texts[0] == texts[1]


def test_it_is_ranked_where_no_data_is_given(small_bundle: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    words = ["run", str(small_bundle), "--ckpt", str(small_checkpoint), "--batch", "1:1:4", "--examples", "2"]
    done = CliRunner().invoke(main, [*words, "--report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "retrieval on generated:test: 32 videos, 32 texts, 0 unreadable" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "conformance.jsonl").read_text().splitlines()]
    [found] = [line["retrieval"] for line in lines if "retrieval" in line]
    assert (found["data"], found["videos"]) == ("generated", 32)
    assert set(found["t2v"]["figures"]) == {"R@1", "R@5", "R@10", "MdR", "MnR"}
    assert len(found["pairs"]) == 32 * 32
    assert {line["status"] for line in lines if line.get("stage") == "retrieval"} == {"pass"}


def test_none_turns_it_off(small_bundle: Path, small_checkpoint: Path) -> None:
    report = run(small_bundle, checkpoint=small_checkpoint, data="none", batches=(1, 2), examples=1)
    assert report.passed
    assert report.retrieval == ()
    assert "retrieval" not in {result.stage for result in report.results}


def test_without_a_checkpoint_it_is_not_run(small_bundle: Path) -> None:
    report = run(small_bundle, batches=(1, 2), examples=1)
    [result] = [result for result in report.results if result.stage == "retrieval"]
    assert result.status == "not_run"
    assert "add --ckpt" in result.hint


def test_int8_proves_nothing_on_it_where_the_model_does_not_retrieve(small_model: Model, reference: TorchHost) -> None:
    host = RuntimeHost(small_model)
    host.precision = "int8"
    with generated_split() as chosen:
        results, [summary], _ = compare_rankings(reference, [host], small_model.bundle, chosen, 8)
    assert not summary.meaningful
    [result] = [result for result in results if result.stage == "retrieval"]
    assert result.status == "not_run"
    assert "give a split on which it retrieves" in result.hint


def test_every_host_is_given_the_same_frames_and_ids_in_bounded_batches(
    small_model: Model, reference: TorchHost, good_clips: list[Path], tmp_path: Path
) -> None:
    chosen = read_split(write_data(tmp_path, good_clips * 3, captions=2), "test")
    hosts = [Counting(small_model), Counting(small_model)]
    split = embed_split(reference, hosts, small_model.bundle, chosen.clips, batch=2)
    assert max(len(feed["frames"]) for feed in hosts[0].fed["video"]) == 2
    assert max(len(feed["input_ids"]) for feed in hosts[0].fed["text"]) == 2
    for graph in ("video", "text"):
        for one, other in zip(hosts[0].fed[graph], hosts[1].fed[graph], strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)
    assert split.owners.tolist() == [n // 2 for n in range(18)]
    # As the runtime's own way from files and captions to embeddings.
    [first, _] = split.hosts
    assert not isinstance(first, Exception)
    assert np.allclose(first.video, small_model.encode_videos([clip.video for clip in chosen.clips]), atol=1e-6)
    assert np.allclose(first.text, small_model.encode_texts(split.captions), atol=1e-6)


def test_a_host_that_raises_is_not_asked_again_and_the_others_go_on(
    small_model: Model, reference: TorchHost, good_clips: list[Path], tmp_path: Path
) -> None:
    chosen = read_split(write_data(tmp_path, good_clips * 2), "test")
    hosts = [Counting(small_model, fails=1), Counting(small_model)]
    results, [summary], _ = compare_rankings(reference, hosts, small_model.bundle, chosen, 2)
    assert len(hosts[0].fed["video"]) == 1
    assert hosts[0].fed["text"] == []
    [failed] = [result for result in results if result.status == "fail"]
    assert (failed.stage, failed.where) == ("retrieval", "out of memory")
    assert summary.videos == 6


def test_missing_clips_are_left_out_and_named_once(
    small_model: Model, reference: TorchHost, good_clips: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    spec = write_data(tmp_path, [tmp_path / "empty.mp4", *good_clips, tmp_path / "absent.mp4"])
    hosts = [RuntimeHost(small_model), RuntimeHost(small_model)]
    _, summaries, left_out = compare_rankings(reference, hosts, small_model.bundle, read_split(spec, "test"), 8)
    assert [(entry.videos, entry.texts, entry.unreadable) for entry in summaries] == [(3, 3, 2)] * 2
    assert len(left_out) == 2
    assert "empty.mp4" in left_out[0]
    assert "absent.mp4" in left_out[1]
    assert str(tmp_path) not in "".join(left_out)


def test_a_caption_that_is_none_leaves_its_clip_out(
    small_model: Model, reference: TorchHost, good_clips: list[Path], tmp_path: Path
) -> None:
    chosen = read_split(write_data(tmp_path, good_clips), "test")
    clips = [replace(chosen.clips[0], captions=("fine", "x" * 1_000_001)), *chosen.clips[1:]]
    split = embed_split(reference, [], small_model.bundle, clips, 8)
    assert split.names == tuple(clip.name for clip in good_clips[1:])
    [sentence] = split.unreadable
    assert sentence.startswith(f"{good_clips[0].name}: a caption of 1,000,001 characters is too long")


def test_where_no_clip_is_left_it_says_so(small_model: Model, reference: TorchHost, tmp_path: Path) -> None:
    chosen = read_split(write_data(tmp_path, [tmp_path / "absent.mp4"]), "test")
    with pytest.raises(MediaError, match=r"none of the 1 clips of the split can be read; the first: .*absent\.mp4"):
        compare_rankings(reference, [RuntimeHost(small_model)], small_model.bundle, chosen, 8)


def test_a_bad_spec_ends_the_run_before_it_begins(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        run(tmp_path / "no bundle", checkpoint=small_checkpoint, data=str(tmp_path / "absent"))
