"""`vtr-runtime` as a user meets it: results on standard output, the rest on standard error, exit statuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vtr_runtime.cli import main


def vtr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(good_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips that are fine, one empty file with a video's name, one text."""
    place = tmp_path_factory.mktemp("videos")
    for path in good_clips[:2]:
        (place / path.name).write_bytes(path.read_bytes())
    (place / "empty.mp4").write_bytes(b"")
    (place / "notes.txt").write_text("notes")
    return place


@pytest.fixture(scope="module")
def indexed(small_bundle: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index")
    assert vtr("embed", small_bundle, folder, "-o", out / "x.parquet").exit_code == 1
    assert vtr("index", small_bundle, out / "x.parquet", "-o", out / "x.vtri").exit_code == 0
    return out / "x.vtri"


def test_embed_names_what_it_could_not_do_and_does_the_rest(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    done = vtr("embed", small_bundle, folder, "-o", tmp_path / "x.parquet", "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert (answer["ok"] + answer["warning"], answer["error"]) == (2, 1)
    assert "empty.mp4" in answer["problems"][-1]["message"]
    assert answer["skipped"] == [str(folder / "notes.txt")]
    assert "empty.mp4" in done.stderr


def test_embed_refuses_an_output_that_is_there(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("mine")
    done = vtr("embed", small_bundle, folder, "-o", tmp_path / "x.parquet")
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert (tmp_path / "x.parquet").read_text() == "mine"


def test_search_shows_the_best_first_and_draws_them(small_bundle: Path, indexed: Path, tmp_path: Path) -> None:
    from PIL import Image

    done = vtr("search", small_bundle, indexed, "a dog", "a cat", "-k", 2, "--json", "--sheet", tmp_path / "x.png")
    assert done.exit_code == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["query"] for answer in answers] == ["a dog", "a cat"]
    for answer in answers:
        scores = [hit["score"] for hit in answer["hits"]]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
        assert all(Path(hit["path"]).is_file() for hit in answer["hits"])
    assert Image.open(tmp_path / "x.png").format == "PNG"


def test_search_reads_parquet_too(small_bundle: Path, indexed: Path) -> None:
    queries = ["search", small_bundle, indexed, "a dog", "--json"]
    by_index = json.loads(vtr(*queries).stdout)
    queries[2] = indexed.with_suffix(".parquet")
    assert json.loads(vtr(*queries).stdout) == by_index


def test_a_table_is_printed_for_people(small_bundle: Path, indexed: Path) -> None:
    done = vtr("search", small_bundle, indexed, "a dog")
    assert done.exit_code == 0
    assert "score" in done.stdout


def test_a_caption_that_is_no_text_is_refused(small_bundle: Path, indexed: Path) -> None:
    done = vtr("search", small_bundle, indexed, os.fsdecode(b"caf\xe9"))
    assert done.exit_code == 1
    assert "surrogate" in done.stderr


def test_info_says_what_a_bundle_is(small_bundle: Path) -> None:
    done = vtr("info", small_bundle)
    assert done.exit_code == 0
    assert "mstdt" in done.stdout
    assert json.loads(vtr("info", small_bundle, "--json").stdout)["format"] == "vtr-bundle"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["info", "nothing"], 1, "is not a folder"),
        (["embed", "nothing"], 2, "Missing option '-o'"),
        (["embed", "nothing", "-o", "x"], 2, "there is nothing to embed"),
        (["embed", "nothing", str(Path(__file__).parent), "-o", "x"], 2, "no video was found, and "),
        (["embed", "nothing", "a", "-o", "x", "--stride", "3"], 2, "give --window too"),
        (["embed", "nothing", "a", "-o", "x", "--ray-workers", "3"], 2, "are for --engine ray"),
        (["search", "a"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_wrong_use_ends_with_its_status(arguments: list[str], status: int, words: str) -> None:
    done = vtr(*arguments)
    assert done.exit_code == status
    assert words in done.stderr
    assert "Traceback" not in done.output
