"""golden.json -> cases with their arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file

from vtr_runtime.bundle import GOLDEN, Bundle
from vtr_runtime.errors import BundleError
from vtr_runtime.golden import GOLDEN_SCHEMA
from vtr_runtime.manifest import Manifest

from .places import Labels
from .stages import NOT_GOLDEN, STAGES, is_known


@dataclass(frozen=True)
class Case:
    """One input of one stage and what the reference makes of it.

    `media` is a clip's path, `texts` are sentences, `arrays` the inputs of a graph; a stage uses what it needs.
    `labels` name the rows of what is expected."""

    id: str
    stage: str
    expected: dict[str, NDArray[Any]]
    media: Path | None = None
    texts: tuple[str, ...] = ()
    arrays: dict[str, NDArray[Any]] | None = None
    labels: Labels = field(default_factory=dict)


def read_cases(bundle: Bundle) -> list[Case]:
    """The golden cases of a bundle, in the order of the stages. BundleError where there are none, or they are of
    another schema, another model or of stages that this version does not know."""
    path = bundle.file(GOLDEN)
    again = "export the bundle anew"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); {again}") from error
    if data.get("schema") != GOLDEN_SCHEMA:
        raise BundleError(
            f"{path} has schema {data.get('schema')}, this reads {GOLDEN_SCHEMA}; upgrade: pip install -U vtr-export"
        )
    if not data["cases"]:
        raise BundleError(f"{path} holds no golden vectors, and without them nothing can be compared; {again}")
    if data["made_by"].get("weights_sha256") != bundle.manifest.weights_sha256:
        raise BundleError(f"{path} was made by other weights than this bundle's; {again}")
    for stage in dict.fromkeys(entry["stage"] for entry in data["cases"]):
        if not is_known(stage):
            raise BundleError(
                f"{path} has cases of the stage '{stage}', which this version does not know; "
                "upgrade: pip install -U vtr-export"
            )
    tensors: dict[str, NDArray[Any]] = {}
    for name in data["tensors"]:
        tensors.update(load_file(bundle.file(f"golden/{name}")))
    return [_read_case(entry, tensors, data.get("labels", {}), bundle) for entry in data["cases"]]


def golden_stages(manifest: Manifest) -> list[str]:
    """The stages of which the golden vectors of a bundle have cases, in order."""
    absent = set(NOT_GOLDEN)
    if manifest.sampler.kind != "dits":
        absent.add("sampler_step")
    if manifest.graphs.rerank is None:
        absent.add("rerank")
    return [stage.name for stage in STAGES if stage.name not in absent]


def _read_case(entry: dict[str, Any], tensors: dict[str, NDArray[Any]], labels: Labels, bundle: Bundle) -> Case:
    inputs = entry["inputs"]
    media = bundle.file(f"golden/{inputs['media']}") if "media" in inputs else None
    arrays = {name: tensors[key] for name, key in inputs.get("tensors", {}).items()}
    expected = {name: tensors[key] for name, key in entry["expected"].items()}
    rows = {} if media is not None else labels  # a clip's case has one row, and the clip in its name
    return Case(entry["id"], entry["stage"], expected, media, tuple(inputs.get("texts", ())), arrays or None, rows)
