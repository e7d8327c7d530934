"""What the service does, without HTTP: sentences in batches, one pass over the index for all that wait, videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..clips import Clip, EmbeddedClip
from ..console import printable
from ..decoding import DecoderProcesses
from ..index import Hit, Index
from ..model import Model
from .batcher import Batcher
from .decoding import Decoders, Places, embed_upload, still_picture
from .metrics import Metrics
from .settings import Settings

Vectors = NDArray[np.float32]
# Of one sentence: files, best first, each with its hits, best first; without `moments` each hit is a file of its own.
Found = list[list[Hit]]


@dataclass(frozen=True)
class Query:
    """Sentences of one caller. `hits` is how many each shall find: 0 to embed only. `moments` as in `search_files`."""

    texts: Sequence[str]
    hits: int = 0
    moments: int | None = None


@dataclass(frozen=True)
class Answer:
    """vectors: float32 [N, D]. found: for each sentence; empty where none was asked for."""

    vectors: Vectors
    found: list[Found]


class Service:
    """A model, perhaps an index, and the queues before them."""

    def __init__(self, model: Model, index: Index | None, settings: Settings) -> None:
        self.model, self.index, self.settings = model, index, settings
        self.metrics = Metrics()
        self.batcher = Batcher[Query, Answer](
            self._answer, most=settings.batch, wait=settings.batch_wait, room=settings.queue
        )
        self.uploads = Places(settings.uploads)
        # A file that ends its decoder, or fills its memory, must not end the service.
        self._strangers = DecoderProcesses(seconds=settings.timeout)
        self.decoders = Decoders(settings.decoders, room=settings.uploads)
        self.metrics.info.labels(model.space, model.variant, model.backend_choice).set(1)
        self.metrics.queue.set_function(lambda: self.batcher.waiting)

    async def ask(self, query: Query) -> Answer:
        """Embed and search together with what others ask for at this time. TextError, BusyError."""
        return await self.batcher.submit(query, len(query.texts))

    async def embed_video(self, clip: Clip) -> EmbeddedClip:
        """What became of it, as `Model.embed_clips` says. BusyError where too many wait."""
        done = await self.decoders.run(partial(embed_upload, self.model, self._strangers, clip))
        self.metrics.videos.labels(done.status).inc()
        return done

    async def still(self, clip: Clip) -> bytes:
        """A JPEG of the clip's middle frame. MediaError, BusyError."""
        return await self.decoders.run(partial(still_picture, clip))

    def close(self) -> None:
        """Begin nothing more; what is being decoded is not waited for."""
        self.decoders.close()
        self._strangers.close()

    def clip(self, row_id: int) -> Clip | None:
        """The index's clip of that id, with the path where it lies here; None where there is none to be shown.

        A relative path lies in the media root; one that leads out of it is not shown."""
        listed = None if self.index is None else self.index.clip(row_id)
        root = self.settings.media_root
        if listed is None or root is None:
            return listed
        path = (root / listed.path).resolve()
        return Clip(path, listed.start, listed.end) if path.is_relative_to(root.resolve()) else None

    def _answer(self, queries: Sequence[Query]) -> list[Answer]:
        start = time.perf_counter()
        sizes = [len(query.texts) for query in queries]
        vectors = self.model.encode_texts([text for query in queries for text in query.texts])
        ends = np.cumsum(sizes)
        rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        found = self._search(vectors, [query for query in queries for _ in query.texts])
        self.metrics.batch.observe(len(vectors))
        self.metrics.batch_seconds.observe(time.perf_counter() - start)
        return [
            Answer(vectors[part], found[part] if query.hits else []) for query, part in zip(queries, rows, strict=True)
        ]

    def _search(self, vectors: Vectors, asked: Sequence[Query]) -> list[Found]:
        """One pass for those who want rows and one for those who want files, as deep as the deepest asks."""
        found: list[Found] = [[] for _ in asked]
        by_row = [n for n, query in enumerate(asked) if query.hits and query.moments is None]
        by_file = [n for n, query in enumerate(asked) if query.hits and query.moments is not None]
        if self.index is not None and by_row:
            deepest = max(asked[n].hits for n in by_row)
            for n, hits in zip(by_row, self.index.search(vectors[by_row], deepest), strict=True):
                found[n] = [[hit] for hit in hits[: asked[n].hits]]
        if self.index is not None and by_file:
            deepest = max(asked[n].hits for n in by_file)
            widest = max(asked[n].moments or 0 for n in by_file)
            for n, files in zip(by_file, self.index.search_files(vectors[by_file], deepest, widest), strict=True):
                found[n] = [hits[: asked[n].moments] for hits in files[: asked[n].hits]]
        return found


def name_of(path: Path) -> str:
    """What a client is told of a path: the last part, readable whatever its bytes are."""
    return printable(path.name)
