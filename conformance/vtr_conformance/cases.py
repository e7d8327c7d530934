"""golden.json -> cases with their arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vtr_runtime.bundle import AGAIN, GOLDEN, Bundle
from vtr_runtime.errors import BundleError
from vtr_runtime.golden import GOLDEN_SCHEMA
from vtr_runtime.manifest import Manifest
from vtr_runtime.stages import NOT_GOLDEN, STAGES, is_known, stage_of

from .places import Labels

ANEW = "make them anew: vtr-conformance golden {} --ckpt best.pt --write -o NEW"


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


@dataclass(frozen=True)
class Golden:
    """The golden vectors of a bundle. `made_by` names versions, the source's revision and the weights."""

    made_by: dict[str, str]
    cases: list[Case]


def read_cases(bundle: Bundle) -> list[Case]:
    """The golden cases of a bundle, in the order of the stages.

    BundleError where it has none, where they are those of other weights, or of a newer version."""
    golden = read_golden(bundle.file(GOLDEN), bundle)
    weights = golden.made_by.get("weights_sha256")
    if weights != bundle.manifest.weights_sha256:
        raise BundleError(
            f"{bundle.folder} has the golden vectors of another model: they are of weights {str(weights)[:12]}, its "
            f"graphs of {bundle.manifest.weights_sha256[:12]}; {ANEW.format(bundle.folder)}"
        )
    if not golden.cases:
        raise BundleError(
            f"{bundle.folder} has no golden vectors: its golden.json lists no case; {ANEW.format(bundle.folder)}"
        )
    return golden.cases


def read_golden(path: Path, bundle: Bundle | None = None) -> Golden:
    """A golden.json with its arrays and clips, whatever weights it is of; `bundle`, where given, must list its files.

    BundleError for what is damaged or of a newer version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") != GOLDEN_SCHEMA:
            raise BundleError(
                f"{path} has schema {data.get('schema')}, this reads {GOLDEN_SCHEMA}; "
                "upgrade: pip install -U vtr-export"
            )
        tensors: dict[str, NDArray[Any]] = {}
        for name in data["tensors"]:
            tensors.update(load_file(_file(name, path, bundle)))
        cases = [_read_case(entry, tensors, data.get("labels", {}), path, bundle) for entry in data["cases"]]
        return Golden(data["made_by"], cases)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as error:
        raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}); {AGAIN}") from error


def golden_stages(manifest: Manifest) -> list[str]:
    """The stages of which the golden vectors of a bundle have cases, in order."""
    absent = set(NOT_GOLDEN)
    if manifest.sampler.kind != "dits":
        absent.add("sampler_step")
    if manifest.graphs.rerank is None:
        absent.add("rerank")
    return [stage.name for stage in STAGES if stage.name not in absent]


def absent_stages(cases: Sequence[Case], manifest: Manifest) -> list[str]:
    """The stages of which a bundle with this manifest ought to have golden vectors and has none, as an older version
    leaves them."""
    there = {stage_of(case.stage).name for case in cases}
    return [stage for stage in golden_stages(manifest) if stage not in there]


def _file(name: str, path: Path, bundle: Bundle | None) -> Path:
    return path.parent / name if bundle is None else bundle.file(f"golden/{name}")


def _read_case(
    entry: dict[str, Any], tensors: dict[str, NDArray[Any]], labels: Labels, path: Path, bundle: Bundle | None
) -> Case:
    inputs, stage = entry["inputs"], entry["stage"]
    if not is_known(stage):
        raise BundleError(f"{path} has a stage {stage!r} that is not known here; upgrade: pip install -U vtr-export")
    media = _file(inputs["media"], path, bundle) if "media" in inputs else None
    arrays = {name: tensors[key] for name, key in inputs.get("tensors", {}).items()}
    expected = {name: tensors[key] for name, key in entry["expected"].items()}
    rows = {} if media is not None else labels  # a clip's case has one row, and the clip in its name
    return Case(entry["id"], stage, expected, media, tuple(inputs.get("texts", ())), arrays or None, rows)
