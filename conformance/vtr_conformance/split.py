"""A split of captioned clips, read once and embedded by the reference and by every host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.bundle import TOKENIZER, Bundle
from vtr_runtime.clips import Clip as Part
from vtr_runtime.console import progress
from vtr_runtime.errors import ConfigError, MediaError, TextError, VtrError
from vtr_runtime.pipeline import Pipeline
from vtr_runtime.text import Tokenizer

from .hosts.base import Arrays, Host
from .rows import run_rows

if TYPE_CHECKING:
    from vtr_training.data.clip import Clip

# Words of --data: the split that is made where none is given, and no split at all.
GENERATED, NONE = "generated", "none"
# Four groups of four clips that differ in the order of their pictures alone, and clips that stand for themselves.
GROUPS, PLAIN = 4, 16
SEED = 6

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class SplitClips:
    """`data` is a name: the report travels in the bundle, a path does not."""

    data: str
    split: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Embedded:
    """What one host gives for a split: unit vectors."""

    video: Embeddings  # [clips, D]
    text: Embeddings  # [captions, D]


@dataclass(frozen=True)
class EmbeddedSplit:
    """The readable clips of a split and their captions, with what the reference and each host gives for them."""

    names: tuple[str, ...]  # of the clips
    captions: tuple[str, ...]
    owners: NDArray[np.int64]  # [captions] the clip that each belongs to
    unreadable: tuple[str, ...]  # one sentence each
    reference: Embedded
    hosts: tuple[Embedded | VtrError, ...] = ()  # the error of a host that raised: it was not asked again


def read_split(spec: str, split: str) -> SplitClips:
    """The user's own. DataError for what is none."""
    from vtr_training.data.source import read_clips
    from vtr_training.data.spec import parse_spec

    parsed = parse_spec(spec)
    if parsed.is_prepared:
        raise ConfigError(f"{spec} holds no videos, and how a host decodes them is tested too; give the videos' SPEC")
    return SplitClips(parsed.title, split, tuple(read_clips(spec, split)))


@contextmanager
def generated_split() -> Iterator[SplitClips]:
    """A small one, whose files are there as long as this is open."""
    from vtr_training.demo.plan import DemoSize
    from vtr_training.demo.write import write_demo_data

    with TemporaryDirectory() as scratch:
        size = DemoSize(train_clips=4, val_groups=0, test_groups=GROUPS, test_plain=PLAIN)
        folder = write_demo_data(Path(scratch) / "data", size=size, seed=SEED).folder
        yield replace(read_split(str(folder), "test"), data=GENERATED)


def embed_split(
    reference: Host, hosts: Sequence[Host], bundle: Bundle, clips: Sequence[Clip], batch: int
) -> EmbeddedSplit:
    """Read each clip once and give it to all, `batch` rows at a time: the frames of a few clips are held at once, the
    embeddings of all. Captions are tokenized by the bundle's tokenizer, for all alike.

    A clip that cannot be read, or has a caption that cannot be tokenized, is left out. MediaError where none is left;
    and what the reference raises."""
    tokenizer = Tokenizer.from_file(bundle.file(TOKENIZER), bundle.manifest.text)
    ids: dict[int, NDArray[np.int32]] = {}
    unreadable: list[str] = []
    for row, clip in enumerate(clips):
        try:
            ids[row] = tokenizer.encode(clip.captions)
        except TextError as error:
            unreadable.append(f"{_name(clip)}: {error}")
    everyone = [_Recorder(host, batch) for host in (reference, *hosts)]

    def ask(graph: str, feed: Arrays) -> None:
        for recorder in everyone:
            recorder.ask(graph, feed)
        if (error := everyone[0].error) is not None:
            raise error

    def see(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, Embeddings]:
        ask("video", {"frames": pixels, "frame_mask": mask})
        return {"embedding": everyone[0].given["video"][-1]}

    kept = []
    parts = (Part(clips[row].video, clips[row].start, clips[row].end) for row in ids)
    with progress("clips through every host", len(ids)) as bar:
        for row, done in zip(ids, Pipeline(bundle.manifest.frames, see).embed(parts), strict=True):
            if done.status == "error":
                unreadable.append(done.message.replace(str(clips[row].video), clips[row].video.name))
            else:
                kept.append(row)
            bar.advance()
    if not kept:
        raise MediaError(f"none of the {len(clips)} clips of the split can be read; the first: {unreadable[0]}")
    rows = np.concatenate([ids[row] for row in kept])
    for start in range(0, len(rows), batch):
        ask("text", {"input_ids": tokenizer.trim(rows[start : start + batch])})
    return EmbeddedSplit(
        names=tuple(_name(clips[row]) for row in kept),
        captions=tuple(caption for row in kept for caption in clips[row].captions),
        owners=np.repeat(np.arange(len(kept)), [len(clips[row].captions) for row in kept]),
        unreadable=tuple(unreadable),
        reference=everyone[0].embedded,
        hosts=tuple(recorder.error or recorder.embedded for recorder in everyone[1:]),
    )


class _Recorder:
    """Keeps what a host gives, until it raises."""

    def __init__(self, host: Host, batch: int) -> None:
        self._host, self._batch = host, batch
        self.given: dict[str, list[Embeddings]] = {"video": [], "text": []}
        self.error: VtrError | None = None

    @property
    def embedded(self) -> Embedded:
        return Embedded(*(np.concatenate(self.given[graph]) for graph in ("video", "text")))

    def ask(self, graph: str, feed: Arrays) -> None:
        if self.error is None:
            try:
                self.given[graph].append(run_rows(self._host, graph, feed, self._batch)["embedding"])
            except VtrError as error:
                self.error = error


def _name(clip: Clip) -> str:
    cut = f" {clip.start or 0:g}-{'' if clip.end is None else f'{clip.end:g}'} s" if clip.start or clip.end else ""
    return clip.video.name + cut
