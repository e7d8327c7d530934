"""The stages in the order in which the data flows."""

from __future__ import annotations

from vtr_runtime.stages import place_in_flow


def test_a_sampler_behind_the_video_tower_walks_behind_the_frames() -> None:
    flow = ["text_embedding", "sampler_step_1", "aligned", "frame_embeddings", "video_embedding"]
    assert sorted(flow, key=lambda stage: place_in_flow(stage, f"{stage}/texts")) == flow
    behind = ["text_embedding", "aligned", "frame_embeddings", "sampler_step_1", "video_embedding"]
    assert sorted(flow, key=lambda stage: place_in_flow(stage, f"{stage}/clips")) == behind
