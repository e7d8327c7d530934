"""`vtr-runtime embed` over every clip at hand, damaged and broken ones included: none is lost, none ends the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "videos"
OURS = ROOT / "tests" / "data" / "videos"
# What INDEX.md and LICENCES.md beside the clips say of them: no video stream, no frame that decodes, no readable file.
WITHOUT_FRAMES = {"media3_invalid-bitstream.webm", "media3_sample_audio_only.mp4", "mp4parse_chunk_out_of_range.mp4"}


def embed(bundle: Path, folder: Path, output: Path) -> tuple[int, dict[str, object]]:
    program = Path(sys.executable).parent / "vtr-runtime"
    words = [program, "embed", bundle, folder, "-o", output, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(OURS, id="tests"),
        pytest.param(
            SHARED,
            id="shared",
            marks=[
                pytest.mark.long,  # one clip of six minutes in AV1
                pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not beside the checkout"),
            ],
        ),
    ],
)
def test_every_clip_has_its_row(small_bundle: Path, tmp_path: Path, folder: Path) -> None:
    status, answer = embed(small_bundle, folder, tmp_path / "x.parquet")
    files = {path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".csv")}
    rows = {Path(row["path"]).name: row for row in pq.read_table(tmp_path / "x.parquet").to_pylist()}
    assert set(rows) == files
    bad = {name for name, row in rows.items() if row["status"] == "error"}
    assert bad == WITHOUT_FRAMES & files
    assert status == (1 if bad else 0)
    assert answer["error"] == len(bad)
    for name, row in rows.items():
        if name in bad:
            assert name in row["error"]
            assert row["embedding"] is None
        else:
            assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-5)
            assert row["times"] == sorted(row["times"])
            assert (row["error"] is None) == (row["status"] == "ok")
