"""CLIP4Clip's temporal parts -> a temporal head of ours (names: ArrowLuo/CLIP4Clip, modules/modeling.py)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn

from vtr_runtime.errors import CheckpointError, ConfigError

from ..backbone import describe_mismatch
from ..config import TemporalConfig
from .families import Found

_POSITIONS = "frame_position_embeddings.weight"
_BLOCKS, _LSTM = "transformerClip.", "lstm_visual."
_PAIRWISE = ("cross.", "similarity_dense.")
_OWN_NAMES = {_POSITIONS: "positional_embedding", _BLOCKS: "transformer.", _LSTM: "lstm."}


@dataclass(frozen=True)
class Head:
    """A temporal head, its weights by CLIP4Clip's names, and what the file holds that the head never reads."""

    name: str  # CLIP4Clip's
    config: TemporalConfig
    weights: dict[str, Tensor]
    unused: tuple[str, ...] = ()


def read_head(found: Found, frames: int) -> Head:
    """Raises CheckpointError for the head that scores pairs, ConfigError for more frames than it has positions."""
    given, path = found.head, found.path
    if any(name.startswith(_PAIRWISE) for name in given):
        raise CheckpointError(
            f"{path} is a CLIP4Clip checkpoint with the head tightTransf (cross.*, similarity_dense.*), which scores "
            "each pair of a text and a video in one network and embeds neither; export meanP, seqLSTM or seqTransf"
        )
    # The tables stand in files of every head, but only seqTransf adds them.
    without = {name: value for name, value in given.items() if name != _POSITIONS}
    unused = (_POSITIONS,) if _POSITIONS in given else ()
    if any(name.startswith(_BLOCKS) for name in given):
        layers = len({match[1] for match in map(re.compile(rf"{_BLOCKS}resblocks\.(\d+)\.").match, given) if match})
        _refuse_too_many(found, frames)
        # How the head began says nothing of a trained one, and could not always be done again.
        config = TemporalConfig(kind="transformer", layers=max(1, layers), init="random", position_init="normal")
        return Head("seqTransf", config, given)
    if any(name.startswith(_LSTM) for name in given):
        return Head("seqLSTM", TemporalConfig(kind="lstm"), without, unused)
    return Head("meanP", TemporalConfig(kind="mean"), without, unused)


def load_head(module: nn.Module, head: Head, found: Found) -> None:
    """Raises CheckpointError when a weight is missing, unexpected or of another shape, by its name in the file."""
    theirs = {_their_name(name): name for name in module.state_dict()}
    wanted = {name: module.state_dict()[own] for name, own in theirs.items()}
    mismatch = describe_mismatch(wanted, head.weights)
    if mismatch:
        raise CheckpointError(
            f"{found.path} is not CLIP4Clip's {head.name}, whose name and shapes it has otherwise: {mismatch}; only "
            "CLIP4Clip's own heads can be read"
        )
    module.load_state_dict({own: head.weights[name].float() for name, own in theirs.items()})


def _refuse_too_many(found: Found, frames: int) -> None:
    table = found.head.get(_POSITIONS)
    if table is not None and table.ndim == 2 and frames > len(table):
        raise ConfigError(
            f"{found.path} has positions for {len(table)} frames, not for {frames}; take at most {len(table)} frames"
        )


def _their_name(name: str) -> str:
    for theirs, own in _OWN_NAMES.items():
        if name.startswith(own):
            return theirs + name.removeprefix(own)
    return name
