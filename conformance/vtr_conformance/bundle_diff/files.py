"""What differs between two bundles on disk: manifest, sizes, operators, and what their reports say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from vtr_runtime.bundle import TOKENIZER, Bundle
from vtr_runtime.manifest import GraphSpec, Manifest
from vtr_runtime.stages import BY_NAME, stage_of

from ..details.operators import count_operators
from ..details.records import changed_kinds
from .records import Field, FileSize, OperatorChange, Reported

# What a host reads of the manifest to feed the graphs and to use what they give.
CONTRACT = ("cleaning_steps", "dim", "frames.", "graphs.", "normalisation", "rerank.", "text.", TOKENIZER)
# Outputs for conformance alone, which no host needs.
INNER = re.compile(r"graphs\.\w+\.output\.(text_embedding|sampler_step_\d+)")
# Told by their own tables, or by the tensors of the graphs.
TOLD_ELSEWHERE = ("files", "graphs")
REPORT = "reports/conformance.jsonl"
# Nothing that this suite writes comes near this.
MAX_REPORT_BYTES = 64 << 20


def changed_fields(a: Bundle, b: Bundle) -> Iterator[Field]:
    """Entries that differ. What B has and A has not, such as another graph or output, breaks no contract."""
    before, after = _flat_manifest(a.manifest), _flat_manifest(b.manifest)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            contract = name.startswith(CONTRACT) and name in before and not INNER.fullmatch(name)
            yield Field(name, before.get(name), after.get(name), contract)


def changed_sizes(a: Bundle, b: Bundle) -> Iterator[FileSize]:
    before, after = a.manifest.files, b.manifest.files
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None or other is None or one.sha256 != other.sha256:
            yield FileSize(name, None if one is None else one.size, None if other is None else other.size)


def changed_operators(a: Bundle, b: Bundle) -> Iterator[OperatorChange]:
    """A line for each graph that both have and that is not the same file."""
    before, after = a.manifest.graphs.named(), b.manifest.graphs.named()
    for name in (name for name in before if name in after):
        one, other = before[name].file, after[name].file
        if a.manifest.files[one].sha256 != b.manifest.files[other].sha256:
            here, there = count_operators(a.file(one)), count_operators(b.file(other))
            kinds = tuple(changed_kinds(here, there))
            yield OperatorChange(name, sum(here.values()), sum(there.values()), kinds)


def read_reported(bundle: Bundle) -> tuple[Reported | None, str]:
    """What the bundle's own report says, or a note why it says nothing. It is not hashed: anyone may have edited it."""
    path = bundle.folder / REPORT
    if not path.is_file():
        return None, f"{path} is not there: no figures of a report"
    if path.stat().st_size > MAX_REPORT_BYTES:
        return None, f"{path} is larger than any report: not read"
    try:
        *lines, last = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        worst: dict[str, float] = {}
        for line in lines:
            if "stage" in line and isinstance(line["measured"], float) and line["host"] != "pytorch":
                stage = stage_of(line["stage"]).name
                worst[stage] = max(worst.get(stage, 0.0), line["measured"])
        ordered = {stage: worst[stage] for stage in BY_NAME if stage in worst}
        return Reported(str(last["verdict"]), ordered), ""
    except (ValueError, KeyError, TypeError, OSError) as error:
        return None, f"{path} cannot be read ({type(error).__name__}): no figures of a report"


def _flat_manifest(manifest: Manifest) -> dict[str, Any]:
    """Dotted names -> values; of a graph its tensors, of tokenizer.json its hash."""
    data = manifest.model_dump(mode="json")
    fields = dict(_flat({name: value for name, value in data.items() if name not in TOLD_ELSEWHERE}))
    for name, graph in manifest.graphs.named().items():
        fields |= {f"graphs.{name}.{key}": value for key, value in _tensors(graph)}
    return fields | {TOKENIZER: manifest.files[TOKENIZER].sha256}


def _tensors(graph: GraphSpec) -> Iterator[tuple[str, str]]:
    for kind, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in tensors:
            yield f"{kind}.{tensor.name}", f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
