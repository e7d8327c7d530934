"""last.pt: everything that an exact resume needs, written in one step and loadable without running code."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vtr_export.model.checkpoint import write_tensors
from vtr_runtime.errors import CheckpointError


@dataclass
class Progress:
    """How far a run is."""

    data: str = ""  # fingerprint of the training split
    step: int = 0  # steps done
    best: float = float("-inf")  # validation metric of best.pt
    best_step: int = 0
    seconds: float = 0.0  # spent in steps


class Stateful(Protocol):
    """What goes on where it was when it is given its state again: a module, an optimizer, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save_state(path: Path, parts: Mapping[str, Stateful], progress: Progress) -> None:
    """Write `path` atomically."""
    state = {
        **{name: part.state_dict() for name, part in parts.items()},
        "random": random_state(),
        "progress": asdict(progress),
    }
    write_tensors(path, state)


def load_state(path: Path, parts: Mapping[str, Stateful]) -> Progress:
    """Restore the parts from `path`, random generators too. CheckpointError if it is damaged or does not fit."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        progress = Progress(**state["progress"])
        set_random_state(state["random"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be resumed from ({reason}); start again with another -o") from error
    return progress


def random_state() -> dict[str, Any]:
    """The states of all global generators in types that `weights_only` admits."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
