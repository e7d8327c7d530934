"""A recipe: everything that a training run depends on, from a TOML file and `--set key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vtr_export.model.config import AlignmentConfig, TemporalConfig
from vtr_runtime.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSettings(Section):
    backbone: str | dict[str, Any] = Field(
        description="an open_clip model name, a .json file in open_clip's model format, or a table in that format"
    )
    pretrained: str | None = Field(
        default=None, description="open_clip's tag or a file of weights; none: random weights"
    )
    frames: int = Field(default=12, ge=1, description="T, frames per clip")
    temporal: TemporalConfig = TemporalConfig()
    alignment: AlignmentConfig = AlignmentConfig()


class DataSettings(Section):
    spec: Path = Field(description="a .jsonl file, or a folder that holds data.jsonl; relative to the working folder")
    train: str = Field(default="train", description="split to train on")
    val: str = Field(default="val", description="split that selects best.pt")
    cache: Path | None = Field(
        default=None, description="folder of decoded frames; default: .frames beside the data file"
    )


class BatchSettings(Section):
    size: int = Field(default=128, ge=2, description="clips per batch; the others of a batch are the negatives")
    groups_from: float | None = Field(
        default=None, ge=0, le=1, description="share of the steps after which batches are made of whole groups"
    )
    distinct_frames: bool = Field(
        default=False,
        description="encode frames that are equal within a batch once; batch statistics then count them once",
    )


class OptimSettings(Section):
    lr: float = Field(default=4e-4, gt=0, description="peak rate of the new parts: temporal head and alignment")
    clip_lr: float = Field(default=1e-6, ge=0, description="peak rate of CLIP's own parts and the logit scale")
    weight_decay: float = Field(default=0.2, ge=0, description="decoupled; not for norms, biases, gains and positions")
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="AdamW's decay of the first and second moment")
    eps: float = Field(default=1e-6, gt=0, description="added to the root of the second moment")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps with a linearly rising rate")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the whole gradient")


class LossSettings(Section):
    bsl: float = Field(default=0.0, ge=0, description="weight beta of the binary similarity loss; 0: InfoNCE alone")
    bsl_temperature: float = Field(default=0.05, gt=0, description="of both its softmaxes; not the logit scale")


class ValidationSettings(Section):
    every: int = Field(default=100, ge=1, description="steps between two validations; each also writes last.pt")
    metric: Literal["t2v_r1", "rsum", "t2v_r1+group_r1"] = Field(
        default="rsum", description="what best.pt is chosen by; group_r1: recall at 1 within groups, text to video"
    )
    batch: int = Field(default=64, ge=1, description="clips or captions per pass")


class Recipe(Section):
    model: ModelSettings
    data: DataSettings
    steps: int = Field(ge=1, description="optimizer steps; the whole schedule is stretched over them")
    seed: int = Field(default=0, ge=0, description="of initial weights, batches and captions")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    batches: BatchSettings = BatchSettings()
    optim: OptimSettings = OptimSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML file and apply `key.of.table=value` overrides. ConfigError names the key that is wrong."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give a recipe"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; mend it there") from None
    for override in overrides:
        _apply(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {key}: {first['msg']}; mend it in the file or with --set {key}=...") from None


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one key. The value is read as TOML; what is no TOML value (such as a bare word) is a string."""
    key, equals, text = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not all([*tables, last]):
        raise ConfigError(f"--set {override!r} is not key=value; write for instance --set optim.lr=1e-4")
    for name in tables:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {override!r}: {name} is a value and holds no keys; name the key itself")
    try:
        settings[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        settings[last] = text.strip()
