"""Every command that writes, on a disk that is too small: a limit on file size makes the kernel refuse the write."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def small_disk(limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(words, preexec_fn=lower, capture_output=True, text=True, check=False)


@pytest.fixture
def outputs(small_bundle: Path, good_clips: list[Path], tmp_path: Path) -> Path:
    """A folder with an old output of every kind."""
    for words in (
        ["embed", small_bundle, *good_clips, "-o", tmp_path / "x.parquet"],
        ["index", small_bundle, tmp_path / "x.parquet", "-o", tmp_path / "x.vtri"],
    ):
        subprocess.run([BIN / "vtr-runtime", *words], check=True, capture_output=True)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old.txt").write_text("old")
    return tmp_path


def test_the_old_output_stays_and_one_sentence_is_said(
    outputs: Path, small_bundle: Path, small_checkpoint: Path, good_clips: list[Path]
) -> None:
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    parquet, index, bundle = (outputs / name for name in ("x.parquet", "x.vtri", "bundle"))
    for limit, words in (
        (2000, ["vtr-runtime", "embed", small_bundle, *good_clips, "-o", parquet]),
        (300, ["vtr-runtime", "index", small_bundle, parquet, "-o", index]),
        (900_000, ["vtr-export", "--ckpt", small_checkpoint, "-o", bundle]),
    ):
        done = small_disk(limit, *words, "--overwrite")
        assert done.returncode == 1
        assert "no room to write" in done.stderr
        assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before
