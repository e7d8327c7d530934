"""`make demo` in small: every station is passed and leaves what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_demo_leaves_what_it_promises(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "training" / "demo.py", tmp_path / "demo", "--clips", "400", "--steps", "4"]
    for _ in range(2):  # repeatable
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "demo"
    for name in ("data/data.jsonl", "best.pt", "mean/best.pt", "bundle/manifest.json", "index.vtri"):
        assert (folder / name).is_file(), name
    assert Image.open(folder / "results.png").width > 500
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["gates"]["fail"] == 0
    assert summary["gates"]["pass"] > 20
    ceiling = summary["heads"]["mean"]["within_groups_r1"]["all"]
    assert ceiling["order_blind"] == 0.25
    assert ceiling["t2v"] == pytest.approx(0.25)
