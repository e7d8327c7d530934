"""One model for many threads, and memory that stays where it is whatever shapes come by."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from vtr_runtime import load
from vtr_runtime.backends import BACKENDS
from vtr_runtime.backends.onnx_runtime import OnnxRuntimeBackend
from vtr_runtime.bundle import open_bundle
from vtr_runtime.cli import main
from vtr_runtime.errors import UsageError

CPU_BACKENDS = ["onnx-cpu", "openvino"]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_threads_with_batches_of_their_own_share_a_model(small_bundle: Path, backend: str) -> None:
    model = load(small_bundle, backend, threads=1)
    generator = np.random.default_rng(0)
    ids = model.tokenize([f"sentence {'word ' * length}" for length in range(12)])
    frames = generator.integers(0, 256, (5, 12, 32, 32, 3), dtype=np.uint8)
    mask = np.ones((5, 12), bool)
    texts, videos = model.encode_ids(ids), model.encode_pixels(frames, mask)
    assert np.abs(texts[0] - texts[5]).max() > 1e-3
    assert np.abs(videos[0] - videos[3]).max() > 1e-3

    def ask(seed: int) -> float:
        rows = np.random.default_rng(seed).permutation(12)[: 1 + seed % 12]
        clips = np.random.default_rng(seed).permutation(5)[: 1 + seed % 5]
        found: list[NDArray[np.float32]] = [model.encode_ids(ids[rows]) - texts[rows]]
        if seed % 3 == 0:
            found.append(model.encode_pixels(frames[clips], mask[clips]) - videos[clips])
        return max(float(np.abs(difference).max()) for difference in found)

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(ask, range(60))) < 1e-6


GROWTH = """
import sys
import numpy as np, psutil
from pathlib import Path
from vtr_runtime.backends import open_backend, BackendOptions
from vtr_runtime.bundle import open_bundle
backend, _ = open_backend(open_bundle(Path(sys.argv[1])), sys.argv[2], BackendOptions(threads=1))
generator, held = np.random.default_rng(0), []
for step in range(450):
    rows, tokens = int(generator.integers(1, 33)), int(generator.integers(2, 78))
    ids = np.full((rows, tokens), 320, np.int32)
    ids[:, 0], ids[:, -1] = 49406, 49407
    backend.text(ids)
    if step % 10 == 0:
        clips = 1 + rows // 4
        backend.video(np.zeros((clips, 12, 32, 32, 3), np.uint8), np.ones((clips, 12), bool))
    held.append(psutil.Process().memory_info().rss / 1e6)
print(held[0], max(held[:150]), max(held[150:300]), max(held[300:]))
"""


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_memory_does_not_grow_with_the_shapes(small_bundle: Path, backend: str) -> None:
    """Of the process, in MB, over 450 batches of random rows and tokens: what the last third adds to the second is a
    small part of what the first took. Without buckets OpenVINO adds 40 MB there, and goes on."""
    command = [sys.executable, "-c", GROWTH, str(small_bundle), backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    _, _, second, third = map(float, done.stdout.split())
    assert third - second < 15, done.stdout


def test_idle_threads_spin_or_sleep(small_bundle: Path) -> None:
    opened = open_bundle(small_bundle)
    for spin, entry in ((True, "1"), (False, "0")):
        session = OnnxRuntimeBackend(opened, spin=spin)._sessions["text"]
        assert session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == entry


def test_engines_are_looked_for_where_they_are_said_to_be(small_bundle: Path, tmp_path: Path) -> None:
    from vtr_runtime.engines.openvino_build import build_openvino

    build_openvino(open_bundle(small_bundle), engine_dir=tmp_path)
    model = load(small_bundle, engine_dir=tmp_path, threads=1)
    assert model.backend_choice.startswith("openvino (auto: the bundle holds the engine openvino-fp32")
    plain = load(small_bundle, threads=1)
    assert plain.backend.name == "onnx-cpu"
    assert np.abs(model.encode_texts(["a dog"]) - plain.encode_texts(["a dog"])).max() < 1e-5


def test_the_commands_take_the_same_options(small_bundle: Path, tmp_path: Path, good_clips: list[Path]) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "x.parquet")
    refused = run(main, ["embed", str(small_bundle), str(good_clips[0]), "-o", out, "--backend", "trt"])
    assert (refused.exit_code, Path(out).exists()) == (1, False)
    assert refused.output.startswith("error: ")
    nowhere = run(
        main, ["embed", str(small_bundle), str(good_clips[0]), "-o", out, "--engine-dir", str(tmp_path / "x")]
    )
    assert nowhere.exit_code == 2
    assert "is not a folder; give the one that vtr-runtime build wrote" in nowhere.output
    helped = "".join(run(main, ["embed", "--help"]).output.split())
    assert f"graphs:{','.join(BACKENDS)}." in helped
    options = ["--engine-dir", str(tmp_path), "--allow-fallback"]
    done = run(main, ["embed", str(small_bundle), str(good_clips[0]), "-o", out, *options])
    assert done.exit_code == 0, done.output
    assert "backend: onnx-cpu (auto: it runs the graphs as they are; not trt, trt-rtx" in done.output
    said = run(main, ["info", str(small_bundle)])
    assert "onnx-cpu (auto: it runs the graphs as they are" in " ".join(said.output.split())
    found = run(main, ["search", str(small_bundle), out, "a dog", "--backend", "openvino", *options])
    assert found.exit_code == 0, found.output


def test_a_bundle_without_a_second_stage_says_so(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="no second stage; export it with --rerank"):
        OnnxRuntimeBackend(open_bundle(small_bundle)).rerank({})
