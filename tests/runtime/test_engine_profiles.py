"""Optimisation profiles and the memory that a build with them is predicted to take."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.engines import memory
from vtr_runtime.engines.device import DeviceInfo
from vtr_runtime.engines.memory import (
    MemoryNeed,
    host_memory_free,
    means_out_of_memory,
    memory_shortage,
    predict_memory,
)
from vtr_runtime.engines.profiles import ProfileRequest, Range, check_profile, graph_profiles, input_shapes
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import GraphSpec, TensorSpec

GIB = 1 << 30


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


def test_a_range_is_three_rising_numbers() -> None:
    assert Range.parse("1:8:32") == Range(1, 8, 32)
    assert str(Range.parse("4:4:4")) == "4:4:4"


@pytest.mark.parametrize("text", ["", "8", "1:8", "1:8:32:64", "a:b:c", "1:-8:32", "1:8.5:32", "1: 8:32", "1:٨:32"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not MIN:OPT:MAX; give three whole numbers, such as --text-batch 1:8:32"):
        Range.parse(text, option="--text-batch")


@pytest.mark.parametrize("text", ["0:8:32", "8:4:32", "1:64:32"])
def test_a_range_that_does_not_rise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not rise from 1"):
        Range.parse(text)


def test_each_graph_has_the_profiles_of_its_use(bundle: Bundle) -> None:
    profiles = graph_profiles(bundle.manifest, ProfileRequest(batch=Range(2, 4, 6)))
    shapes = {
        name: [input_shapes(graph, profile) for profile in profiles[name]]
        for name, graph in bundle.manifest.graphs.named().items()
    }
    assert shapes["text"] == [
        {"input_ids": ((1, 2), (1, 16), (1, 77))},
        {"input_ids": ((1, 2), (16, 32), (64, 77))},
    ]
    frames = tuple((batch, 12, 32, 32, 3) for batch in (2, 4, 6))
    assert shapes["video"] == [{"frames": frames, "frame_mask": ((2, 12), (4, 12), (6, 12))}]


def test_second_stage_and_split_tower_have_theirs(bundle: Bundle) -> None:
    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    rerank = GraphSpec(
        file="rerank.onnx",
        inputs=(tensor("embedding", 64), tensor("word_mask", "tokens"), tensor("frame_mask", "candidates", 12)),
        outputs=(tensor("scores", "candidates"),),
    )
    frames = GraphSpec(file="frames.onnx", inputs=(tensor("frames", "batch", 32, 32, 3),), outputs=())
    graphs = bundle.manifest.graphs.model_copy(update={"rerank": rerank, "frames": frames})
    manifest = bundle.manifest.model_copy(update={"graphs": graphs})
    profiles = graph_profiles(manifest, ProfileRequest(batch=Range(2, 4, 6), candidates=Range(1, 10, 50)))
    assert input_shapes(rerank, profiles["rerank"][0]) == {
        "embedding": ((64,), (64,), (64,)),
        "word_mask": ((2,), (32,), (77,)),
        "frame_mask": ((1, 12), (10, 12), (50, 12)),
    }
    assert input_shapes(frames, profiles["frames"][0])["frames"] == tuple((n, 32, 32, 3) for n in (1, 48, 72))


def test_a_profile_outside_the_graph_is_refused_by_name(bundle: Bundle) -> None:
    text, video = bundle.manifest.graphs.text, bundle.manifest.graphs.video
    one = Range(1, 1, 1)
    with pytest.raises(UsageError, match=r"the profile of text asks for tokens 2:16:78, and the graph takes 2 to 77"):
        check_profile("text", text, {"batch": one, "tokens": Range(2, 16, 78)}, 77)
    with pytest.raises(UsageError, match=r"asks for tokens 1:16:77"):
        check_profile("text", text, {"batch": one, "tokens": Range(1, 16, 77)}, 77)
    with pytest.raises(UsageError, match=r"sets 'frames', which the graph does not leave free; .* are: batch"):
        check_profile("video", video, {"batch": one, "frames": Range(8, 12, 12)}, 77)
    with pytest.raises(UsageError, match=r"the profile of text says nothing of its axis 'tokens'"):
        check_profile("text", text, {"batch": one}, 77)


def test_the_prediction_is_the_documented_sum(bundle: Bundle) -> None:
    request = ProfileRequest(batch=Range(1, 8, 32), text_batch=Range(1, 1, 2))
    need = predict_memory(bundle, graph_profiles(bundle.manifest, request), workspace=GIB)
    text, video = ((bundle.folder / name).stat().st_size for name in ("text.onnx", "video.onnx"))
    assert need.host == 5 * max(text, video) + GIB
    clips = 16 * 4 * 32 * (12 * 32 * 32 * 3 + 12)
    sentences = 16 * 4 * 2 * 77 * 64
    assert need.device == max(2 * video + clips, 2 * text + sentences) + 2 * GIB


def test_a_shortage_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need = MemoryNeed(host=6 * GIB, device=3 * GIB)
    card = DeviceInfo("RTX", "89", "13.0", 8 * GIB, 2 * GIB, False)
    jetson = DeviceInfo("Orin", "87", "12.6", 8 * GIB, 2 * GIB, True)
    assert memory_shortage(need, None, 8 * GIB) is None
    assert memory_shortage(need, None, None) is None
    assert "host memory is short: the build is predicted to take 6.0 GiB, and 4.0 GiB are free" in str(
        memory_shortage(need, None, 4 * GIB)
    )
    assert "GPU memory is short: the build is predicted to take 3.0 GiB" in str(memory_shortage(need, card, 8 * GIB))
    assert "the shared memory is short: the build is predicted to take 9.0 GiB, and 8.0 GiB" in str(
        memory_shortage(need, jetson, 8 * GIB)
    )
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 100 kB\nMemAvailable:     2048 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", info)
    assert host_memory_free() == 2 << 20
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert host_memory_free() is None


def test_builders_words_for_a_lack_of_memory_are_known() -> None:
    assert means_out_of_memory(["Error Code 10: Could not find any implementation for node {ForeignNode}."])
    assert means_out_of_memory(["Requested amount of GPU memory (4294967296 bytes) could not be allocated."])
    assert not means_out_of_memory(["Error Code 4: API Usage Error (first input has type UInt8)"])
