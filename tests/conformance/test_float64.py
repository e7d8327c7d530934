"""PyTorch in float64, the reference's reference: really in float64, and the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtr_conformance.cases import read_cases
from vtr_conformance.corners import draw_clips
from vtr_conformance.hosts.torch import TorchHost
from vtr_conformance.run import run
from vtr_export.model.config import RerankConfig
from vtr_export.model.rerank import build_reranker
from vtr_runtime.bundle import open_bundle


@pytest.fixture(scope="module")
def reference(small_bundle: Path, small_checkpoint: Path) -> TorchHost:
    return TorchHost(small_checkpoint, open_bundle(small_bundle))


class FloatTypes(TorchDispatchMode):
    """Notes the floating types that operators give; an array that becomes a tensor is none yet."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.lift_fresh.default:
            tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
            self.seen |= {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        return found


def test_no_operator_of_a_pass_gives_less_than_float64(small_bundle: Path, reference: TorchHost) -> None:
    exact = reference.in_float64()
    for case in read_cases(open_bundle(small_bundle)):
        if case.arrays is not None:
            with FloatTypes() as types:
                found = exact.answer(case)
            assert isinstance(found, dict)
            assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}
            assert types.seen == {torch.float64}, case.id
    assert reference.dtype == torch.float32  # which stays as it was
    assert next(reference.model.parameters()).dtype == torch.float32


def test_it_is_the_same_model_and_rounds_less(small_bundle: Path, reference: TorchHost) -> None:
    feed = draw_clips(open_bundle(small_bundle).manifest.frames)
    exact = reference.in_float64().run("video", feed)["embedding"]
    here = reference.run("video", feed)["embedding"]
    difference = float(np.abs(exact - here).max())
    assert 1e-9 < difference < 1e-5
    assert np.abs(np.linalg.norm(exact, axis=1) - 1).max() < 1e-15  # in float32 it would be off by 1e-8 and more


def test_the_report_shows_the_references_own_rounding(small_bundle: Path, small_checkpoint: Path) -> None:
    report = run(small_bundle, checkpoint=small_checkpoint, batches=(1, 2))
    mine = [result for result in report.results if result.backend == "torch float64"]
    assert {result.host for result in mine} == {"pytorch"}
    assert {result.status for result in mine} == {"pass"}
    assert {result.stage for result in mine} >= {"text_embedding", "sampler_step_1", "aligned", "video_embedding"}
    assert "corners" not in {result.stage for result in mine}
    moved = [result.measured for result in mine if result.stage == "aligned"]
    assert 0 < max(m for m in moved if m is not None) < 1e-6


@pytest.mark.parametrize("kind", ["token-wise", "x-pool"])
def test_the_second_stage_too(reference: TorchHost, kind: Any) -> None:
    config = reference.model.config.model_copy(update={"rerank": RerankConfig(kind=kind)})
    host = reference.in_float64()
    torch.manual_seed(0)
    reranker = build_reranker(config)
    assert reranker is not None
    host.model.rerank = reranker.double().eval()
    draw = np.random.default_rng(0)
    shown = np.array([False, True, True, False])
    feed = {
        "embedding": draw.normal(size=64).astype(np.float32),
        "word_embeddings": draw.normal(size=(4, 64)).astype(np.float32),
        "word_mask": shown,
        "word_weights": np.where(shown, 2, 0).astype(np.float32),
        "frame_embeddings": draw.normal(size=(3, 12, 64)).astype(np.float32),
        "frame_mask": np.ones((3, 12), bool),
    }
    with FloatTypes() as types:
        assert host.run("rerank", feed)["scores"].dtype == np.float64
    assert types.seen == {torch.float64}
