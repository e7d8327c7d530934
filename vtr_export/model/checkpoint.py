"""Checkpoints: one file that holds a model's configuration, its weights and what training needs, and no code."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtr_runtime.errors import CheckpointError, ConfigError
from vtr_runtime.publish import check_output, staged_file

from .backbone import describe_mismatch
from .config import ModelConfig, parse_model_config
from .retrieval import RetrievalModel

FORMAT = "vtr-checkpoint"
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; the model is in float32 on the CPU, in evaluation mode."""

    model: RetrievalModel
    config: ModelConfig
    training: dict[str, Any]
    weights_sha256: str


def save_checkpoint(path: str | Path, model: RetrievalModel, *, training: dict[str, Any] | None = None) -> str:
    """Write a checkpoint whole or not at all; return the weights' hash. `training` may hold plain values and tensors.

    Raises CheckpointError for anything else in `training`, StorageError, OutputExistsError if the folder is absent."""
    path = Path(path)
    check_output(path, overwrite=True)
    _refuse_code(training or {}, "training")
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    digest = weights_sha256(weights)
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "config": model.config.model_dump(mode="json"),
        "weights": weights,
        "weights_sha256": digest,
        "training": training or {},
    }
    write_tensors(path, content)
    return digest


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """torch.save, whole or not at all: StorageError where the disk is full, and what stood at `path` stays."""
    # Through a file object: torch's own writer hides a full disk behind a RuntimeError.
    with staged_file(path) as staged, staged.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # and where it closes what could not be written, it fails once more
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running any code of it. Raises CheckpointError, one sentence."""
    path = Path(path)
    return parse_checkpoint(read_weights_only(path), path)


def parse_checkpoint(content: Any, path: Path) -> Checkpoint:
    """The checkpoint in what `path` holds. Raises CheckpointError, one sentence."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of this project; give one written by vtr-train, or --open-clip"
        )
    schema = content.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise CheckpointError(f"{path} has schema {schema}, newer than {SCHEMA}; upgrade vtr-export to read it")
    weights = content.get("weights")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} is damaged: it holds no weights; copy or train it again")
    try:
        config = parse_model_config(content.get("config") or {})
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    model = RetrievalModel(config)
    mismatch = describe_mismatch(model.state_dict(), weights)
    if mismatch:
        raise CheckpointError(f"{path} does not fit its own configuration: {mismatch}; copy or train it again")
    digest = weights_sha256(weights)
    if digest != content.get("weights_sha256"):
        raise CheckpointError(f"{path} is damaged: its weights are not those that were saved; copy or train it again")
    refuse_non_finite(weights, path)
    model.load_state_dict(weights)
    return Checkpoint(model.eval(), config, content.get("training") or {}, digest)


def read_weights_only(path: Path) -> Any:
    """torch.load for tensors and plain values only. Raises CheckpointError, one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says about foreign pickles is said below, once
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or holds code beside its weights, and was not run; give a file of plain tensors"
        ) from error
    except (
        Exception
    ) as error:  # a torn file fails in the zip reader, the unpickler or the tensors: many types, one cause
        raise CheckpointError(f"{path} is damaged or no checkpoint ({type(error).__name__}); copy it again") from error


def refuse_non_finite(weights: Mapping[str, Tensor], source: str | Path = "the checkpoint") -> None:
    """Raise CheckpointError, naming the first tensor, where a weight is NaN or infinite, or would be in float32."""
    bad = {}
    for name, value in weights.items():
        if value.is_floating_point():
            count = value.numel() - int(torch.isfinite(value.float()).sum())
            if count:
                bad[name] = count
    if bad:
        name, count = next(iter(bad.items()))
        others = f" (as are some of {', '.join([*bad][1:4])}{', ...' * (len(bad) > 4)})" if len(bad) > 1 else ""
        raise CheckpointError(
            f"{source} cannot be used: {count} of the {weights[name].numel()} values of {name} are NaN or infinite"
            f"{others}; take a checkpoint from before the training diverged"
        )


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """One hash of all weights: names in order, each with dtype, shape and its bytes (little-endian, row by row)."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _refuse_code(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_code(key, f"a key of {where}")
            _refuse_code(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_code(item, f"{where}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None), bytes, Tensor):
        raise CheckpointError(
            f"{where} is a {type(value).__name__}, which a safe checkpoint cannot hold; save plain values and tensors"
        )
