"""last.pt: everything that an exact resume needs, written in one step and loadable without running code."""

from __future__ import annotations

import pickle
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from vtr_runtime.errors import CheckpointError
from vtr_runtime.publish import staged_file


@dataclass
class Progress:
    """How far a run is."""

    data: str = ""  # fingerprint of the training split
    step: int = 0  # steps done
    best: float = float("-inf")  # validation metric of best.pt
    best_step: int = 0
    seconds: float = 0.0  # spent in steps


def save_state(path: Path, model: nn.Module, objective: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write `path` atomically."""
    state = {
        "model": model.state_dict(),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "progress": asdict(progress),
    }
    # Through a file object: torch's own writer hides a full disk behind a RuntimeError.
    with staged_file(path) as staged, staged.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path, model: nn.Module, objective: nn.Module, optimizer: Optimizer) -> Progress:
    """Restore everything from `path`, random generators included. CheckpointError if it is damaged or does not fit."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
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
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
