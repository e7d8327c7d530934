"""Hosts that run the right graphs with wrong inputs, or take their outputs wrongly."""

from __future__ import annotations

import numpy as np

from vtr_export.model.config import ModelConfig

from ..hosts.base import Arrays
from .mutant import HostMutant


def _all_frames_seen(graph: str, feed: Arrays) -> Arrays:
    return {**feed, "frame_mask": np.ones_like(feed["frame_mask"])} if graph == "video" else feed


def _all_words_alike(graph: str, feed: Arrays) -> Arrays:
    return {**feed, "word_weights": np.ones_like(feed["word_weights"])} if graph == "rerank" else feed


def _candidates_all_seen(graph: str, feed: Arrays) -> Arrays:
    return {**feed, "frame_mask": np.ones_like(feed["frame_mask"])} if graph == "rerank" else feed


def _sorted_by_length(graph: str, feed: Arrays) -> Arrays:
    if graph != "text":
        return feed
    ids = feed["input_ids"]
    return {"input_ids": ids[np.argsort((ids != 0).sum(axis=1), kind="stable")]}


def _in_half(graph: str, feed: Arrays, outputs: Arrays) -> Arrays:  # noqa: ARG001
    if graph == "rerank":
        return outputs
    return {**outputs, "embedding": outputs["embedding"].astype(np.float16).astype(np.float32)}


def _doubled(graph: str, feed: Arrays, outputs: Arrays) -> Arrays:  # noqa: ARG001
    """One embedding is filled in a row further on, as by a buffer that is used again too early."""
    if graph != "video" or len(outputs["embedding"]) < 2:
        return outputs
    last = {**outputs, "embedding": outputs["embedding"].copy()}
    last["embedding"][0] = last["embedding"][1]
    return last


def no_second_stage(config: ModelConfig) -> str:
    return "" if config.rerank.kind != "none" else "the model has no second stage"


def _no_weights(config: ModelConfig) -> str:
    return "" if config.rerank.weighs_words else "the model has no second stage that weighs words"


FEEDING = (
    HostMutant(
        name="mask-not-passed",
        mistake="every frame is said to be there, padding too",
        expected=("frame_embeddings",),
        feed=_all_frames_seen,
    ),
    HostMutant(
        name="rows-not-restored",
        mistake="sentences are sorted by length for the engine and not put back",
        expected=("text_embedding",),
        feed=_sorted_by_length,
    ),
    HostMutant(
        name="rounded-to-half",
        mistake="embeddings pass through a buffer of fp16",
        expected=("aligned",),
        outputs=_in_half,
    ),
    HostMutant(
        name="buffer-overwritten",
        mistake="the second row's embedding is read for the first as well",
        expected=("video_embedding",),
        outputs=_doubled,
    ),
    HostMutant(
        name="word-weights-ignored",
        mistake="the second stage gets equal weights for all words",
        expected=("rerank",),
        makes_no_difference=_no_weights,
        feed=_all_words_alike,
    ),
    HostMutant(
        name="candidates-not-masked",
        mistake="the second stage is told that every frame of a candidate is there",
        expected=("rerank",),
        makes_no_difference=no_second_stage,
        feed=_candidates_all_seen,
    ),
)
