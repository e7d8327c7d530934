"""Every corner of a profile: each batch, mask, length and end of text that a bundle's graphs must take.

The golden vectors come from a few real clips and sentences; what goes wrong at one batch or one position only is found
here. Inputs are drawn, and what they should give is asked of PyTorch where the checkpoint is at hand; without it, and
in int8, an embedding must be finite and of unit length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import VtrError
from vtr_runtime.manifest import FrameSpec, Manifest, TextSpec

from .hosts.base import Arrays, Host
from .judge import judge, not_run, raised
from .results import Result
from .rows import run_rows
from .stages import FINITE, UNIT_LENGTH

# min, opt and max of a batch.
BATCHES = (1, 3, 8)
# Tokens: empty, one word, a query, a full sentence. The last is the context length, whatever it is.
LENGTHS = (2, 3, 16)
# Clips that are drawn; larger batches repeat them. One costs a quarter of a second at ViT-B/32 on two cores.
CLIPS = 8
SENTENCES = 8
CANDIDATES = 8


@dataclass(frozen=True)
class Corner:
    """Inputs of one graph. `sources` gives for each row the drawn one that it repeats, where there are rows."""

    graph: str
    name: str
    feed: Arrays
    sources: NDArray[np.intp]


def corners(manifest: Manifest, batches: Sequence[int] = BATCHES) -> list[Corner]:
    """The corners of every graph of a bundle, at these batches."""
    sizes = sorted(set(batches))
    found = [*_video_corners(manifest.frames, sizes), *_text_corners(manifest.text, sizes)]
    return found + _rerank_corners(manifest, sizes)


def expect(reference: Host | None, found: Sequence[Corner], batch: int) -> list[Arrays | None]:
    """What the reference gives at each corner; None where there is no reference."""
    return [None if reference is None else _ask_once(reference, corner, batch) for corner in found]


def check_corners(
    host: Host, found: Sequence[Corner], expected: Sequence[Arrays | None], batch: int
) -> Iterator[Result]:
    """One result a corner. `batch` is the largest that the graphs are run with."""
    for corner, want in zip(found, expected, strict=True):
        stage = "rerank" if corner.graph == "rerank" else "corners"
        case = f"{corner.graph}, {corner.name}"
        if host.note is not None:
            yield not_run(host, stage, case, host.note)
            continue
        try:
            got = run_rows(host, corner.graph, corner.feed, batch)
        except VtrError as error:
            yield raised(host, stage, case, error)
            continue
        yield _judge_corner(host, stage, case, want, got)


def draw_clips(spec: FrameSpec) -> Arrays:
    """CLIPS rows of frames uint8 [.., T, S, S, 3] and masks bool [.., T].

    Pictures of 4 x 4 colours: those of plain noise look alike to a CLIP tower."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (CLIPS, spec.count, 4, 4, 3), dtype=np.uint8)
    cell = np.arange(spec.size) * 4 // spec.size
    frames = colours[:, :, cell][:, :, :, cell]
    frames[4], frames[5] = 0, 255  # black and white
    return {"frames": np.ascontiguousarray(frames), "frame_mask": draw_masks(spec.count)}


def draw_masks(count: int) -> NDArray[np.bool_]:
    """bool [CLIPS, T]: all frames, the first, the last, every second one, then from a few to nearly all of them."""
    place = np.arange(count)
    few_to_many = [place < max(1, round(count * part)) for part in (0.2, 0.4, 0.7, 0.9)]
    return np.stack([place >= 0, place == 0, place == count - 1, place % 2 == 0, *few_to_many])


def draw_sentence(generator: np.random.Generator, spec: TextSpec, end: int) -> NDArray[np.int32]:
    """A row of random words whose first end token stands at `end`, zeros behind it: int32 [context length].

    Where the vocabulary has ids above the end token's, a sentence of more than one word holds the highest."""
    ids = np.zeros(spec.context_length, np.int32)
    words = generator.integers(1, spec.vocab_size, end - 1)
    special = (words == spec.start_id) | (words == spec.end_id)
    words[special] = 1
    if end > 2:
        highest = max(set(range(spec.vocab_size - 3, spec.vocab_size)) - {spec.start_id, spec.end_id})
        words[generator.integers(end - 1)] = highest
    ids[0], ids[1:end], ids[end] = spec.start_id, words, spec.end_id
    return ids


def draw_query(generator: np.random.Generator, manifest: Manifest, tokens: int, candidates: int) -> Arrays:
    """Inputs of `rerank`: unit vectors near one another, words strictly inside the sentence, every candidate with
    another mask."""
    dim, count = manifest.dim, manifest.frames.count
    common = generator.normal(size=dim)

    def units(*shape: int) -> NDArray[np.float32]:
        drawn = common + generator.normal(size=(*shape, dim))
        return np.asarray(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True), np.float32)

    place = np.arange(tokens)
    word_mask = (place > 0) & (place < max(2, tokens - 1))
    frame_mask = draw_masks(count)[np.arange(candidates) % CLIPS]
    feed: Arrays = {
        "embedding": units(),
        "word_embeddings": units(tokens) * word_mask[:, None],
        "word_mask": word_mask,
        "frame_embeddings": units(candidates, count) * frame_mask[:, :, None],
        "frame_mask": frame_mask,
    }
    feed["word_weights"] = (word_mask * (1 + place % 2)).astype(np.float32)
    assert manifest.graphs.rerank is not None
    return {tensor.name: feed[tensor.name] for tensor in manifest.graphs.rerank.inputs}


def _video_corners(spec: FrameSpec, sizes: Sequence[int]) -> Iterator[Corner]:
    clips, start = draw_clips(spec), 0
    for size in sizes:
        rows = (start + np.arange(size)) % CLIPS
        yield Corner("video", f"batch {size}", {name: array[rows] for name, array in clips.items()}, rows)
        start += size


def _text_corners(spec: TextSpec, sizes: Sequence[int]) -> Iterator[Corner]:
    generator = np.random.default_rng(1)
    ends = np.arange(1, spec.context_length)
    rows = np.stack([draw_sentence(generator, spec, int(end)) for end in ends])
    # Each cut behind its longest sentence, which halves the work; invariance sees to the padding.
    for start in range(0, len(rows), SENTENCES):
        some = ends[start : start + SENTENCES]
        cut = rows[start : start + SENTENCES, : some[-1] + 1]
        yield Corner("text", f"end of text at {some[0]} to {some[-1]}", {"input_ids": cut}, some - 1)
    for length in sorted({*(n for n in LENGTHS if n < spec.context_length), spec.context_length}):
        for size in sizes:
            chosen = np.linspace(length - 1, 1, min(size, SENTENCES)).round().astype(np.intp) - 1
            chosen = np.resize(chosen, size)
            yield Corner("text", f"batch {size}, {length} tokens", {"input_ids": rows[chosen, :length]}, chosen)


def _rerank_corners(manifest: Manifest, sizes: Sequence[int]) -> list[Corner]:
    if manifest.graphs.rerank is None:
        return []
    generator = np.random.default_rng(2)
    found = []
    for length in (*LENGTHS, manifest.text.context_length):
        for size in sizes:
            feed = draw_query(generator, manifest, length, size)
            found.append(Corner("rerank", f"{size} candidates, {length} tokens", feed, np.arange(size)))
    return found


def _ask_once(reference: Host, corner: Corner, batch: int) -> Arrays:
    """A row that is there more than once is asked for once."""
    if corner.graph == "rerank":
        return run_rows(reference, corner.graph, corner.feed, batch)
    _, first, back = np.unique(corner.sources, return_index=True, return_inverse=True)
    distinct = {name: array[first] for name, array in corner.feed.items()}
    return {name: array[back] for name, array in run_rows(reference, corner.graph, distinct, batch).items()}


def _judge_corner(host: Host, stage: str, case: str, want: Arrays | None, got: Arrays) -> Result:
    if stage == "rerank":
        zeros = {"scores": np.zeros_like(got["scores"])}
        return judge(host, stage, case, want or zeros, got, gate=None if want else FINITE)
    if want is not None and host.precision != "int8":
        return judge(host, stage, case, {name: want[name] for name in got if name in want}, got)
    lengths = np.linalg.norm(got["embedding"].astype(np.float64), axis=-1)
    norms = {"norm": np.ones_like(lengths)}, {"norm": lengths}
    return judge(host, stage, case, *norms, gate=UNIT_LENGTH[host.precision])
