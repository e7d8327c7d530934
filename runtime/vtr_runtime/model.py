"""`load` a bundle and embed videos and sentences with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .backends import Backend, BackendOptions, DeviceBackend, DeviceTensor, open_backend
from .bundle import TOKENIZER, Bundle, open_bundle
from .clips import Clip, EmbeddedClip
from .decoding import Decoder
from .errors import MediaError, UsageError
from .manifest import Manifest
from .pipeline import VIDEO_BATCH, Pipeline
from .pixels import resize_crop
from .query_cache import QueryCache
from .sampling import Windows
from .text import Tokenizer, validate_ids
from .video import read_frames

# Embeddings of sentences that are kept: 2 MB at a length of 512.
QUERIES = 1024


class Model:
    """A bundle opened on a backend. Safe to share between threads.

    `query_cache.info()` counts the sentences that `encode_texts` found again; with `query_cache` 0 it keeps none."""

    def __init__(self, bundle: Bundle, backend: Backend, choice: str, *, query_cache: int = QUERIES) -> None:
        self.bundle = bundle
        self.backend = backend
        self.backend_choice = choice
        self.query_cache = QueryCache(query_cache)
        self._tokenizer = Tokenizer.from_file(bundle.file(TOKENIZER), bundle.manifest.text)

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @property
    def space(self) -> str:
        """Names the embedding space; embeddings of two models may be compared exactly when their spaces agree."""
        return self.manifest.space

    @property
    def variant(self) -> str:
        return self.manifest.variant

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def read_frames(
        self, path: str | Path, start: float | None = None, end: float | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
        """Sample a video: pixels uint8 [T, S, S, 3], mask bool [T], times float64 [T] in seconds (NaN where masked).

        MediaError if no frame can be had."""
        frames = read_frames(Path(path), self.manifest.frames, start=start, end=end)
        return frames.pixels, frames.mask, frames.times

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Clean and tokenize: int32 [N, context length], zero-padded. TextError for what is no text."""
        return self._tokenizer.encode(texts)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed sentences: float32 [N, D], unit length. TextError for what is no text."""
        ids = self.tokenize(texts)
        keys = [row.tobytes() for row in ids]
        places = {key: place for place, key in enumerate(keys)}
        found = {key: self.query_cache.get(key) for key in places}
        missing = [key for key, row in found.items() if row is None]
        for key, row in zip(missing, self.encode_ids(ids[[places[key] for key in missing]]), strict=True):
            found[key] = row
            self.query_cache.put(key, row)
        out = np.zeros((len(ids), self.manifest.dim), np.float32)
        for place, key in enumerate(keys):
            out[place] = found[key]
        return out

    def encode_ids(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Embed token ids int32 [N, L]: float32 [N, D]. TextError for ids that the model does not know."""
        validate_ids(ids, self.manifest.text)
        out = np.zeros((len(ids), self.manifest.dim), np.float32)
        # Short sentences together: a pass costs what its longest row costs, and padding changes no embedding.
        lengths = (ids == self.manifest.text.end_id).argmax(axis=1)
        for rows in _chunks(np.argsort(lengths, kind="stable"), self.backend.text_rows):
            out[rows] = self.backend.text(self._tokenizer.trim(ids[rows]))["embedding"]
        return out

    def encode_frames(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Embed frames uint8 [B, T, H, W, 3] of any height and width, mask bool [B, T]: float32 [B, D], unit length.

        Fewer than the bundle's T frames are padded with masked ones. UsageError for any other shape or type."""
        count, size = self.manifest.frames.count, self.manifest.frames.size
        if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise UsageError(f"frames must be uint8 [B, T, H, W, 3], not {frames.dtype} {list(frames.shape)}")
        batch, given = frames.shape[:2]
        if not 1 <= given <= count:
            raise UsageError(f"{given} frames per clip were given and the bundle takes 1 to {count}; sample them first")
        valid = np.ones((batch, given), bool) if mask is None else mask
        if valid.shape != (batch, given) or valid.dtype != np.bool_:
            raise UsageError(f"mask must be bool [{batch}, {given}], not {valid.dtype} {list(valid.shape)}")
        if not valid.any(axis=1).all():
            raise UsageError("mask has a row without any valid frame; leave such clips out")
        pixels = np.zeros((batch, count, size, size, 3), np.uint8)
        for b, t in zip(*np.nonzero(valid), strict=True):
            pixels[b, t] = resize_crop(frames[b, t], size)
        full_mask = np.zeros((batch, count), bool)
        full_mask[:, :given] = valid
        return self.encode_pixels(pixels, full_mask)

    def encode_pixels(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Embed frames that are sampled and resized already: uint8 [B, T, S, S, 3], bool [B, T] -> float32 [B, D]."""
        parts = [self.backend.video(pixels[rows], mask[rows])["embedding"] for rows in _spans(len(pixels), VIDEO_BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.manifest.dim), np.float32)

    def encode_ids_on_device(self, ids: DeviceTensor) -> DeviceTensor:
        """As `encode_ids`, of a tensor with `__dlpack__` on the backend's device, where the result stays.

        >>> torch.from_dlpack(model.encode_ids_on_device(ids))  # int32 [N, L] -> float32 [N, D], no copy of either
        """
        backend = self._on_device()
        # An id that is out of range would be looked up as zeros there, without a word: a copy is looked at here.
        validate_ids(backend.fetch(ids), self.manifest.text)
        return backend.run_on_device("text", {"input_ids": ids})["embedding"]

    def encode_pixels_on_device(self, pixels: DeviceTensor, mask: DeviceTensor) -> DeviceTensor:
        """As `encode_pixels`, of tensors with `__dlpack__` on the backend's device, where the result stays."""
        return self._on_device().run_on_device("video", {"frames": pixels, "frame_mask": mask})["embedding"]

    def _on_device(self) -> DeviceBackend:
        if not isinstance(self.backend, DeviceBackend):
            raise UsageError(f"backend {self.backend.name} takes arrays of numpy alone; use encode_pixels, encode_ids")
        return self.backend

    def encode_videos(self, paths: Sequence[str | Path]) -> NDArray[np.float32]:
        """Embed video files: float32 [N, D], unit length. MediaError if one is unreadable (`embed_clips` goes on)."""
        done = list(self.embed_clips(Clip(Path(path)) for path in paths))
        bad = [item for item in done if item.embedding is None]
        if bad:
            raise MediaError(f"{len(bad)} of {len(done)} videos cannot be read; the first: {bad[0].message}")
        rows = [item.embedding for item in done if item.embedding is not None]
        return np.stack(rows) if rows else np.zeros((0, self.manifest.dim), np.float32)

    def rerank(
        self, text: str, frame_embeddings: NDArray[np.float32], *, word_weights: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Second-stage scores float32 [K] of a sentence and K videos, by their frame_embeddings float32 [K, T, D] (zero
        where masked). What ranks is first stage + `manifest.rerank.weight` * this, see `rescoring.second_stage`.

        Where the bundle weighs words (`manifest.rerank.textual_attention`), `word_weights` float32 [L] are those of
        `tokenize`'s ids: 2 for what matters, else 1. Without them a tagger finds them, as in training. UsageError for a
        bundle without a second stage or another shape, ConfigError without a tagger."""
        from .reranking import score_again

        return score_again(self, text, frame_embeddings, word_weights)

    def embed_clips(
        self,
        clips: Iterable[Clip],
        *,
        windows: Windows | None = None,
        workers: int | None = None,
        decoder: Decoder | None = None,
    ) -> Iterator[EmbeddedClip]:
        """Embed clips in their order. An unreadable clip is yielded with its error and the others are done.

        With `windows` each clip becomes a clip per window, in order of time; `start` and `end` of the given ones must
        then be None. Decoding runs ahead in `workers` threads (default: one per core) in a bounded queue: no more
        frames are held for many or long clips than for a few. `decoder` says where files are decoded: in these threads,
        or, with `decoding.DecoderProcesses`, in processes that may die over a bad file."""
        return self.pipeline(windows=windows, workers=workers, decoder=decoder).embed(clips)

    def pipeline(
        self, *, windows: Windows | None = None, workers: int | None = None, decoder: Decoder | None = None
    ) -> Pipeline:
        """What `embed_clips` runs, for who embeds groups of clips."""
        return Pipeline(self.manifest.frames, self.backend.video, windows, workers, decoder)


def load(
    bundle: str | Path,
    backend: str = "auto",
    *,
    threads: int | None = None,
    spin: bool = True,
    allow_fallback: bool = False,
    engine_dir: str | Path | None = None,
    device: int = 0,
    query_cache: int = QUERIES,
) -> Model:
    """Open and verify a bundle. `backend` is run as asked for or refused with the reason, never replaced.

    `threads` are a CPU engine's (default: one per core); with `spin` those of ONNX Runtime wait busily between calls,
    which answers a query sooner and takes the cores from decoding. `allow_fallback` lets a GPU's provider leave parts
    of a graph to the CPU. Engines are looked for in `engine_dir` (default: the bundle's folder engines). `device` is
    the GPU, as the driver numbers them. `query_cache` is how many sentences' embeddings are kept.

    >>> model = load("bundle/")
    >>> model.encode_texts(["a dog runs"]) @ model.encode_videos(["dog.mp4", "cat.mp4"]).T
    """
    opened = open_bundle(Path(bundle))
    options = BackendOptions(
        threads=threads,
        spin=spin,
        allow_fallback=allow_fallback,
        engine_dir=None if engine_dir is None else Path(engine_dir),
        device=device,
    )
    engine, choice = open_backend(opened, backend, options)
    return Model(opened, engine, choice, query_cache=query_cache)


def _spans(count: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, count, step)]


def _chunks(rows: NDArray[np.intp], step: int) -> list[NDArray[np.intp]]:
    return [rows[span] for span in _spans(len(rows), step)]
