"""A recipe: everything that a training run depends on, from a TOML file and `--set key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vtr_export.model.config import AlignmentConfig, RerankConfig, TemporalConfig
from vtr_runtime.errors import ConfigError
from vtr_runtime.sampling import Sampling

from .data.clip import DECODE_SECONDS

Precision = Literal["fp32", "bf16", "fp16"]
Part = Literal["image", "text", "temporal", "alignment", "rerank"]


TOWERS = {"image", "text"}
TOWER = "a tower that is trained (optim.freeze)"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSettings(Section):
    backbone: str | dict[str, Any] = Field(
        description="an open_clip model name, a .json file in open_clip's model format, or a table in that format"
    )
    pretrained: str | None = Field(
        default=None, description="open_clip's tag or a file of weights; none: random weights"
    )
    start_from: Path | None = Field(
        default=None, description="a best.pt; each part of the same configuration begins with its weights, others anew"
    )
    frames: int = Field(default=12, ge=1, description="T, frames per clip")
    sampling: Sampling = Field(
        default="uniform", description="which T frames: evenly over the clip, or fps1, CLIP4Clip's one a second"
    )
    temporal: TemporalConfig = TemporalConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    rerank: RerankConfig = RerankConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pretrained is not None and self.start_from is not None:
            raise ValueError("pretrained and start_from both say where the weights come from; leave one out")
        return self


class DataSettings(Section):
    spec: str = Field(
        description="a .jsonl, .csv or .parquet file, a folder that holds data.jsonl, or a benchmark with its folder "
        "(msrvtt-9k:DIR, see docs/data-sets.md); relative to the working folder"
    )
    train: str = Field(default="train", description="split to train on")
    val: str = Field(default="val", description="split that selects best.pt")
    cache: Path | None = Field(
        default=None, description="folder of decoded frames; default: .frames beside the data set's files"
    )
    decode_seconds: float = Field(
        default=DECODE_SECONDS,
        gt=0,
        description="that decoding a clip may take; a slower one is skipped and counted",
    )
    tagger: Literal["auto", "spacy", "hanta"] = Field(
        default="auto", description="who tells parts of speech, where a score weighs words; auto: spaCy if installed"
    )


class BatchSettings(Section):
    size: int = Field(default=128, ge=2, description="clips per batch; the others of a batch are the negatives")
    groups_from: float | None = Field(
        default=None, ge=0, le=1, description="share of the steps after which batches are made of whole groups"
    )
    chunk: int | None = Field(
        default=None,
        ge=1,
        description="clips per pass through the towers; the gradient stays that of the whole batch; none: all at once",
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
    freeze: tuple[Part, ...] = Field(
        default=(),
        description="parts that keep their weights; with the image tower among them its features are computed once",
    )
    freeze_layers: int | None = Field(
        default=None,
        ge=0,
        description="first blocks of each tower that keep their weights, with the embeddings; 0: the embeddings alone",
    )
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the averaged weights that are validated and kept; none: without"
    )


class BslSettings(Section):
    """MSTDT's binary similarity loss; see losses.bsl."""

    weight: float = Field(default=0.0, ge=0, description="beta; 0: without it")
    temperature: float = Field(default=0.05, gt=0, description="of both its softmaxes; not the logit scale")
    teacher: Literal["detached", "live"] = Field(default="detached", description="whether a gradient reaches Q")
    pairing: Literal["own", "swapped", "averaged"] = Field(
        default="own", description="Q_vv teaches P_vt and Q_tt P_tv, the other way round, or their mean teaches both"
    )
    direction: Literal["forward", "reversed"] = Field(default="forward", description="KL(Q || P), or KL(P || Q)")
    threshold: float | None = Field(
        default=None, gt=-1, lt=1, description="Q is 0/1 targets, cosines above it alike; none: softmax targets"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.threshold is not None and self.direction == "reversed":
            raise ValueError("KL(P || Q) is infinite where a target is 0; leave threshold out, or direction")
        return self


class NegNceSettings(Section):
    """DMAE's contrastive loss with hard negatives; see losses.neg_nce."""

    positive: float = Field(default=1.0, ge=0, description="c_pos, weight of -log P_ii")
    negative: float = Field(default=0.5, ge=0, description="c_neg, weight of -log (1 - P_ij) over the hard pairs")
    margin: float = Field(default=0.0, ge=0, description="m, how far a negative may stay behind and still be hard")
    scale: float | None = Field(default=None, gt=0, description="of the scores; none: the learned logit scale")
    hard_from: Literal["own", "rerank"] = Field(
        default="own", description="hard pairs are those of the score at hand, or of the second stage's refined score"
    )


class TpmSettings(Section):
    """DMAE's triplet partial margin contrastive learning; see tpm.TpmLoss."""

    weight: float = Field(default=0.0, ge=0, description="0: without it")
    tau: float = Field(default=0.6, gt=0, le=1, description="importance that is masked away, most important first")
    delta: float = Field(default=0.1, gt=0, description="margin of every triplet; 0.6 in the released code")
    triplets: tuple[Literal[1, 2, 3], ...] = Field(default=(1, 2, 3), min_length=1, description="which of the three")
    release: bool = Field(default=False, description="as in the released code, its defects included (docs/methods.md)")


class GapSettings(Section):
    """Stage A of the diffusion control: its network learns the gap, everything else stands still."""

    loss: Literal["l1", "l2"] = Field(default="l2", description="between true and predicted noise (equation 6: l2)")
    until: float = Field(default=0.0, ge=0, le=1, description="share of the steps that pre-train; 0: none")


class LossSettings(Section):
    contrastive: Literal["cross-entropy", "negnce"] = Field(
        default="cross-entropy", description="on the first stage's cosines: symmetric InfoNCE, or NegNCE"
    )
    rerank: Literal["cross-entropy", "negnce"] = Field(
        default="cross-entropy", description="the same on the second stage's scores, where there is one"
    )
    rerank_weight: float = Field(default=1.0, gt=0, description="of the second stage's loss beside the first's")
    negnce: NegNceSettings = NegNceSettings()
    bsl: BslSettings = BslSettings()
    tpm: TpmSettings = TpmSettings()
    gap: GapSettings = GapSettings()


class ValidationSettings(Section):
    every: int = Field(default=100, ge=1, description="steps between two validations; each also writes last.pt")
    patience: int | None = Field(
        default=None, ge=1, description="validations without a better value that end the run; none: all steps are done"
    )
    metric: Literal["t2v_r1", "rsum", "t2v_r1+group_r1"] = Field(
        default="rsum", description="what best.pt is chosen by; group_r1: recall at 1 within groups, text to video"
    )
    batch: int = Field(default=64, ge=1, description="clips or captions per pass")
    top_k: int | None = Field(
        default=None,
        ge=1,
        description="choose best.pt by the second stage on the best K of the first; none: by the first",
    )


class Recipe(Section):
    model: ModelSettings
    data: DataSettings
    steps: int = Field(ge=1, description="optimizer steps; the whole schedule is stretched over them")
    seed: int = Field(default=0, ge=0, description="of initial weights, batches and captions")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    precision: Precision = Field(
        default="fp32", description="what the towers compute in; weights, losses and norms stay in float32"
    )
    checkpointing: bool = Field(
        default=False, description="keep the input of each block alone and compute the rest again on the way back"
    )
    compile: bool = Field(default=False, description="compile the towers (torch.compile); the first steps take minutes")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between two last.pt, beside each validation's")
    batches: BatchSettings = BatchSettings()
    optim: OptimSettings = OptimSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()

    @property
    def trainable(self) -> set[Part]:
        """The parts of this model that have weights."""
        heads: dict[Part, bool] = {
            "temporal": self.model.temporal.kind != "mean",
            "alignment": self.model.alignment.kind != "none",
            "rerank": self.model.rerank.kind != "none",
        }
        return {"image", "text", *(part for part, there in heads.items() if there)}

    @model_validator(mode="after")
    def _has_what_its_settings_are_for(self) -> Self:
        loss, has_rerank = self.loss, self.model.rerank.kind != "none"
        negnce = "negnce" in (loss.contrastive, loss.rerank if has_rerank else None)
        diffuses = self.model.alignment.kind == "diffusion"
        stage = "a second stage (model.rerank.kind)"
        for key, given, needs, there in (
            ("validation.top_k", self.validation.top_k is not None, stage, has_rerank),
            ("loss.rerank", loss.rerank == "negnce", stage, has_rerank),
            ("loss.rerank_weight", loss.rerank_weight != 1, stage, has_rerank),
            ("loss.negnce.hard_from", loss.negnce.hard_from == "rerank", stage, has_rerank),
            ("loss.negnce", loss.negnce != NegNceSettings(), "the loss 'negnce' (loss.contrastive)", negnce),
            ("optim.freeze_layers", self.optim.freeze_layers is not None, TOWER, not set(self.optim.freeze) >= TOWERS),
            ("checkpointing", self.checkpointing, TOWER, not set(self.optim.freeze) >= TOWERS),
            ("loss.gap.until", loss.gap.until > 0, "model.alignment.kind 'diffusion'", diffuses),
        ):
            if given and not there:
                raise ValueError(f"{key} has no effect without {needs}; leave it out, or set that")
        return self

    @model_validator(mode="after")
    def _leaves_something_to_train(self) -> Self:
        frozen, present = set(self.optim.freeze), self.trainable
        if absent := sorted(frozen - present):
            raise ValueError(f"optim.freeze names {absent[0]!r}, of which this model has no weights; leave it out")
        if not present - frozen:
            raise ValueError("optim.freeze names every part, so nothing is left to train; leave one out")
        if present - frozen == {"rerank"} and self.validation.top_k is None:
            raise ValueError("only the second stage is trained and it must choose best.pt: set validation.top_k")
        return self


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
        raise ConfigError(f"{path}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    """Which key is wrong, why, and how to mend it. For an unknown key the nearest known one is named."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, first["loc"]))
    if not key:
        return f"{first['msg'].removeprefix('Value error, ')}"
    reason = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(Recipe, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{key} is no key; {hint}"
    return f"{reason}; mend it in the file or with --set {key}=..."


def _known_keys(record: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys of the table at `path` of a record."""
    for name in path:
        record = cast(type[BaseModel], record.model_fields[str(name)].annotation)
    return list(record.model_fields)


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one key. The value is read as TOML; what is no TOML value (such as a bare word) is a string. Nothing after
    the sign takes the key out of the file, so that its default holds."""
    key, equals, text = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not all([*tables, last]):
        raise ConfigError(f"--set {override!r} is not key=value; write for instance --set optim.lr=1e-4")
    for name in tables:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {override!r}: {name} is a value and holds no keys; name the key itself")
    if not text.strip():
        settings.pop(last, None)
        return
    try:
        settings[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        settings[last] = text.strip()


def changed_keys(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Dotted names of the settings in which two nested tables differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from changed_keys(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield key
