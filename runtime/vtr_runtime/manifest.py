"""The manifest: everything that a host must know about a bundle, as frozen types that check themselves.

`space` names the embedding space: two embeddings may be compared exactly when their spaces agree. `variant` adds what
may differ between exports of one space (precision, opset, batch limits)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import BundleError
from .precision import PRECISIONS as PRECISIONS
from .precision import Precision as Precision
from .sampling import Sampling

SCHEMA_VERSION = 1

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Record(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameSpec(Record):
    """What the video tower sees: which frames, and how a frame becomes S x S pixels."""

    count: int = Field(default=12, ge=1, le=512, description="T, frames per clip")
    size: int = Field(default=224, ge=16, le=1024, description="S, side of the square in pixels")
    sampling: Sampling = Field(
        default="uniform", description="T evenly over the clip, or CLIP4Clip's one a second and T of these"
    )
    resize: Literal["shortest"] = "shortest"
    interpolation: Literal["bicubic"] = "bicubic"
    mean: tuple[float, float, float] = Field(default=OPENAI_MEAN, description="per channel, of values in 0..1")
    std: tuple[float, float, float] = Field(default=OPENAI_STD, description="per channel, of values in 0..1")


class TextSpec(Record):
    """What the text tower sees: cleaning, then the BPE of tokenizer.json, then start, end and truncation."""

    cleaning: Literal["standard", "open_clip"] = "standard"
    context_length: int = Field(default=77, ge=3, description="most ids of a sentence, start and end included")
    vocab_size: int = Field(default=49408, ge=3)
    start_id: int = 49406
    end_id: int = 49407


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no blanks, UTF-8: the form in which settings are hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class TensorSpec(Record):
    """One input or output of a graph; a string in `shape` names a dynamic axis."""

    name: str
    dtype: Literal["uint8", "bool", "int32", "float32"]
    shape: tuple[int | str, ...]


class GraphSpec(Record):
    """One ONNX file of the bundle. `external_data` names the file with its weights, where they lie apart."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external_data: str | None = None
    precise: tuple[str, ...] = Field(default=(), description="nodes that run in fp32 where the precision is a hint")


class Graphs(Record):
    """The bundle's graphs. `frames` and `temporal` are the video tower in two, for hosts that keep frames' features."""

    video: GraphSpec
    text: GraphSpec
    rerank: GraphSpec | None = None
    frames: GraphSpec | None = None
    temporal: GraphSpec | None = None

    def named(self) -> dict[str, GraphSpec]:
        """Those that are there, by name."""
        return {name: graph for name in type(self).model_fields if (graph := getattr(self, name)) is not None}


class RerankSpec(Record):
    """The second stage: total = first stage + weight * rerank on the first stage's best K."""

    kind: Literal["token-wise", "x-pool"]
    weight: float
    textual_attention: bool = Field(
        default=False, description="the graph takes word_weights: 2 marks words that matter"
    )


class SamplerSpec(Record):
    """The alignment head inside a graph: DITS's sampler (equation 8), its steps unrolled, or a residual MLP."""

    kind: Literal["none", "dits", "mlp"] = "none"
    tower: Literal["text", "video"] | None = Field(default=None, description="the graph that holds it")
    gap: Literal["v-t", "t-v"] | None = Field(default=None, description="from text to videos, or from video to texts")
    steps: int = Field(default=0, ge=0, description="T'")
    beta_start: float | None = None
    beta_end: float | None = None
    start: Literal["raw", "normalised"] | None = Field(default=None, description="the embedding as it is, or of norm 1")
    condition: Literal["none", "text"] | None = Field(default=None, description="what a step sees beside the latent")
    noise: Literal["none"] = Field(default="none", description="a graph is a function: it draws nothing")
    training_noise: Literal["none", "sqrt-beta"] = Field(default="none", description="what training drew")
    evaluation_noise: Literal["none", "sqrt-beta"] = Field(
        default="none", description="what PyTorch draws outside training, unless told otherwise"
    )

    @property
    def noise_left_out(self) -> str:
        """Where PyTorch draws noise and the graph does not, in words."""
        drawn = {"training": self.training_noise, "evaluation": self.evaluation_noise}
        return " and ".join(where for where, noise in drawn.items() if noise != "none")

    @property
    def summary(self) -> str:
        """In words, for a person."""
        if self.kind == "none":
            return "none"
        parts = [f"{self.kind} behind the {self.tower} tower"]
        if self.kind == "dits":
            parts += [f"{self.steps} steps", *(["condition text"] if self.condition == "text" else [])]
            parts += [f"without the noise of {self.noise_left_out}" if self.noise_left_out else "no noise"]
        return ", ".join(parts)


class FileEntry(Record):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(Record):
    format: Literal["vtr-bundle"] = "vtr-bundle"
    schema_version: int = SCHEMA_VERSION
    name: str = Field(description="the backbone's name")
    dim: int = Field(ge=1, description="D, length of an embedding")
    graphs: Graphs
    frames: FrameSpec
    text: TextSpec
    cleaning_steps: tuple[str, ...] = Field(description="what `text.cleaning` does, in order")
    sampler: SamplerSpec
    rerank: RerankSpec | None = None
    normalisation: Literal["l2"] = "l2"
    model: dict[str, Any] = Field(description="the checkpoint's model configuration")
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    precision: Precision = Field(default="fp32", description="in which the bundle is to be run")
    graph_precision: Precision = Field(default="fp32", description="written into the graphs; else a compile hint")
    islands: tuple[str, ...] = Field(default=(), description="modules kept in fp32 by a graph of less precision")
    opset: int
    space: str
    variant: str
    versions: dict[str, str] = Field(description="libraries that made the bundle")
    exporter: dict[str, Any] = Field(description="the exporter's settings")
    files: dict[str, FileEntry] = Field(description="every core file but the manifest itself")

    def check_fingerprints(self) -> None:
        """Raise BundleError when `space` or `variant` is not what the manifest's own entries give."""
        space = space_of(
            weights_sha256=self.weights_sha256,
            model=self.model,
            frames=self.frames,
            text=self.text,
            sampler=self.sampler,
            normalisation=self.normalisation,
            dim=self.dim,
        )
        variant = variant_of(space, precision=self.precision, opset=self.opset)
        if (space, variant) != (self.space, self.variant):
            raise BundleError("the manifest's space does not match its own settings: it was edited; export it again")


def space_of(
    *,
    weights_sha256: str,
    model: dict[str, Any],
    frames: FrameSpec,
    text: TextSpec,
    sampler: SamplerSpec,
    normalisation: str,
    dim: int,
) -> str:
    """sha256 of all that decides what an embedding means; precision, backend and opset are left out on purpose."""
    return fingerprint(
        {
            "weights": weights_sha256,
            "model": model,
            "frames": frames.model_dump(mode="json"),
            "text": text.model_dump(mode="json"),
            "sampler": sampler.model_dump(mode="json"),
            "normalisation": normalisation,
            "dim": dim,
        }
    )


def variant_of(space: str, *, precision: str, opset: int) -> str:
    return fingerprint({"space": space, "precision": precision, "opset": opset})


def parse_manifest(text: str, *, origin: str) -> Manifest:
    """Read a manifest; a foreign, newer or malformed one is a BundleError that names `origin`."""
    again = "copy the bundle again, or export it anew"
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{origin}: manifest.json is not JSON ({error}); {again}") from error
    if not isinstance(data, dict) or data.get("format") != "vtr-bundle":
        raise BundleError(f"{origin} is not a vtr-export bundle: its manifest does not say format vtr-bundle")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{origin} has manifest schema {version}, and this vtr-runtime reads up to {SCHEMA_VERSION}; "
            "upgrade it: pip install -U vtr-runtime"
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{origin}: manifest.json is malformed at '{where}' ({first['msg']}); {again}") from error
    manifest.check_fingerprints()
    return manifest
