"""vtr-embed: what it writes is what the Python runtime reads, and would have written.

The tool and the bundle are what `make cpp` makes (see conftest.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vtr_runtime import load
from vtr_runtime.index import Index
from vtr_runtime.model import Model
from vtr_runtime.video import read_frames

TEXTS = ("a dog runs over the meadow", "two people cook", "caf\u00e9 \U0001f600")
# One session's kernels against another's: the last digits.
LIMIT = 1e-6


@pytest.fixture(scope="module")
def model(cpp_bundle: Path) -> Model:
    return load(cpp_bundle, "onnx-cpu", threads=1)


def embed(tools: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [tools / "vtr-embed", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_lines_of_sentences(cpp_tools: Path, cpp_bundle: Path, model: Model) -> None:
    done = embed(cpp_tools, cpp_bundle, *(word for text in TEXTS for word in ("--text", text)))
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == list(TEXTS)
    found = np.array([row["embedding"] for row in rows])
    np.testing.assert_allclose(found, model.encode_texts(list(TEXTS)), rtol=0, atol=LIMIT)


def test_an_index_of_videos(
    cpp_tools: Path, cpp_bundle: Path, model: Model, good_clips: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    done = embed(cpp_tools, cpp_bundle, *good_clips, broken, "-o", tmp_path / "x.vtri")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert len(told) == 3  # the file's sentence and two counts, nothing of FFmpeg's own
    assert str(broken) in told[0]
    index = Index(tmp_path / "x.vtri")
    assert index.space == model.space
    wanted = model.encode_videos(good_clips)
    np.testing.assert_allclose(index.vectors, wanted, rtol=0, atol=LIMIT)
    assert [hits[0].path for hits in index.search(wanted, 1)] == good_clips
    assert list(index.files()) == [str(path).encode() for path in good_clips]


def test_frames_of_one_a_second(
    cpp_tools: Path, cpp_bundle: Path, model: Model, good_clips: list[Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(cpp_bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["frames"]["sampling"] = "fps1"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = embed(cpp_tools, bundle, *good_clips)
    assert done.returncode == 0, done.stderr
    found = np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()])
    spec = model.manifest.frames.model_copy(update={"sampling": "fps1"})
    frames = [read_frames(path, spec) for path in good_clips]
    wanted = model.encode_pixels(np.stack([one.pixels for one in frames]), np.stack([one.mask for one in frames]))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=LIMIT)
    assert np.abs(found - model.encode_videos(good_clips)).max() > 100 * LIMIT
