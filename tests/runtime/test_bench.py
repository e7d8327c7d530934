"""`vtr-runtime bench`: every step is there, and the figures are of what they say."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vtr_runtime import bench
from vtr_runtime.cli import main


def vtr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_step_is_timed_by_the_clock() -> None:
    calls = [lambda: time.sleep(0.01), lambda: time.sleep(0.03)]
    found = bench._timed("sleep", 2, calls, 0.4)
    assert found.times >= bench.LEAST_TIMES
    assert 10 <= found.p50 < found.p90 <= found.p99
    assert found.items_per_second == pytest.approx(2000 / found.p50)


def test_each_call_is_timed_once_at_least() -> None:
    seen: list[int] = []
    calls = [partial(seen.append, number) for number in range(7)]
    assert bench._timed("append", 1, calls, 0).times == 7
    assert seen == [0, *range(7)]


def test_every_step_is_measured(small_bundle: Path, good_clips: list[Path]) -> None:
    done = vtr("bench", small_bundle, *good_clips, "--seconds", 0, "--batches", "4,1,4", "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [step["step"].split(",")[0] for step in answer["steps"]] == [
        "list packets", "decode", "resize", "copy into a batch of 8", "engine", "rows for Parquet",
    ]  # fmt: skip
    assert [step["items"] for step in answer["video"]] == [1, 4]
    assert [step["items"] for step in answer["text"]] == [1, 1, 4]
    assert answer["flow"]["clips"] == 3
    assert answer["flow"]["busy"] > 0
    memory = list(answer["memory_mb"].values())
    assert memory == sorted(memory)
    assert answer["machine"]["libraries"]["onnxruntime"][0].isdigit()


def test_without_videos_the_bundles_own_are_taken(small_bundle: Path) -> None:
    done = vtr("bench", small_bundle, "--seconds", 0, "--batches", "1")
    assert done.exit_code == 0, done.stderr
    for word in ("p99", "decode", "videos/s", "peak memory", "MB"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--batches", "0"], 2, "is not a list of whole numbers"),
        (["--batches", "1;2"], 2, "is not a list of whole numbers"),
        (["EMPTY"], 2, "there is no video to measure with"),
        (["nothing.mp4"], 1, "does not exist"),
    ],
)
def test_wrong_use_is_named(small_bundle: Path, tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    given = [str(tmp_path) if word == "EMPTY" else word for word in arguments]
    done = vtr("bench", small_bundle, *given)
    assert done.exit_code == status
    assert words in done.stderr
