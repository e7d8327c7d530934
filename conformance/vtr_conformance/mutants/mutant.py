"""What a mutant is: one mistake that hosts and exporters really make, and the stage that must find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from unittest import mock

from vtr_export.model import RetrievalModel
from vtr_export.model.config import ModelConfig

from ..hosts.base import Arrays

# Why a mistake makes no difference to a model, in words; empty where it does.
Reason = Callable[[ModelConfig], str]
GraphName = Literal["video", "text", "rerank", "sampler"]


@dataclass(frozen=True)
class Patch:
    """One part of the code, named as `package.module.name`, is `replacement` for a while."""

    target: str
    replacement: Any


@contextmanager
def applied(patches: Sequence[Patch]) -> Iterator[None]:
    """The patches hold inside the block and nowhere else."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(mock.patch(patch.target, patch.replacement))
        yield


def never(_: ModelConfig) -> str:
    """Of a mistake that makes a difference to every model."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`mistake` says what is done wrong; `expected` names the stages of which one must be the first to move."""

    kind: ClassVar[str]
    name: str
    mistake: str
    expected: tuple[str, ...]
    makes_no_difference: Reason = never


def _keep_feed(_: str, feed: Arrays) -> Arrays:
    return feed


def _keep_outputs(_: str, feed: Arrays, outputs: Arrays) -> Arrays:  # noqa: ARG001
    return outputs


@dataclass(frozen=True, kw_only=True)
class HostMutant(Mutant):
    """The right bundle on a wrong host: the runtime with a part replaced while it answers, with other inputs given to
    its graphs (`feed`, by the graph's name), or with other outputs taken from them (`outputs`, by name and feed)."""

    kind = "host"
    patches: tuple[Patch, ...] = ()
    feed: Callable[[str, Arrays], Arrays] = _keep_feed
    outputs: Callable[[str, Arrays, Arrays], Arrays] = _keep_outputs


@dataclass(frozen=True, kw_only=True)
class ExportMutant(Mutant):
    """A wrong graph on the right host: `graph` is traced anew from the trained model after `change`, in place, with the
    patches in force. The golden vectors stay those of the right model. `sampler` is the graph that holds it."""

    kind = "export"
    graph: GraphName
    change: Callable[[RetrievalModel], object] = lambda _: None
    patches: tuple[Patch, ...] = ()
    # In fp16, judged by the typed graph: the rules of precision.islands that this exporter does not have.
    fp16_without: tuple[str, ...] = ()

    def graph_of(self, config: ModelConfig) -> str:
        if self.graph != "sampler":
            return self.graph
        return "video" if config.alignment.of_video else "text"
