"""The right export, and wrong ones that differ from it in one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from vtr_export import ExportPlan
from vtr_export.bundle_writer import update_manifest
from vtr_export.exporter import Steps, write_core
from vtr_export.graph.check import describe_graph
from vtr_export.graphs import GraphParts, graph_names, graph_sources
from vtr_export.model import RetrievalModel
from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.config import ModelConfig
from vtr_export.plan import check_model
from vtr_export.precision.islands import DEFAULT_RULES, Islands
from vtr_export.precision.lower import lower_precision
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.manifest import GraphSpec, Manifest
from vtr_runtime.publish import link_or_copy

from .mutant import ExportMutant, applied


@dataclass(frozen=True)
class Sound:
    """A bundle in fp32 with every inner stage, and the model that it was exported from."""

    bundle: Bundle
    checkpoint: Path
    model: RetrievalModel
    parts: GraphParts

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest


def export_sound(checkpoint: Path, folder: Path, say: Callable[[str], None] = lambda _: None) -> Sound:
    """Export a checkpoint of vtr-train's into the new `folder`, with its second stage where it has one.

    CheckpointError or ConfigError for what cannot be exported."""
    loaded = load_checkpoint(checkpoint)
    rerank = loaded.config.rerank.kind != "none"
    plan = ExportPlan(output=folder, checkpoint=checkpoint, debug_outputs=True, rerank=rerank)
    check_model(loaded.config, plan)
    parts = GraphParts(debug_outputs=True, rerank=rerank)
    folder.mkdir()
    write_core(folder, plan, parts, loaded, Steps(2 + len(graph_names(parts)), say))
    return Sound(open_bundle(folder), checkpoint, loaded.model, parts)


def export_mutant(sound: Sound, mutant: ExportMutant, folder: Path) -> Bundle:
    """The sound bundle as `folder`, with the mutant's graph in place of the right one and hashes that fit: nothing but
    what the graph gives can tell them apart. The other files are links to the right ones."""
    name = mutant.graph_of(sound.config)
    right = sound.manifest.graphs.named()[name]
    changed = [file for file in (right.file, right.external_data) if file is not None]
    _link_core(sound.bundle, folder, without=changed)
    model = copy.deepcopy(sound.model)
    mutant.change(model)
    with applied(mutant.patches):
        sources = graph_sources(model, sound.parts, sound.manifest.opset)
        traced = next(source for source in sources if source.name == name).trace(folder / right.file)
    spec = describe_graph(traced)
    graphs = sound.manifest.graphs.model_copy(update={name: spec})
    written = {*changed, *(file.name for file in traced.files)}
    manifest = update_manifest(folder, sound.manifest, written, graphs=graphs)
    if mutant.fp16_without:
        rules = tuple(rule for rule in DEFAULT_RULES if rule not in mutant.fp16_without)
        _lower(folder, manifest, {name: Islands(rules)})
    return open_bundle(folder)


def export_in_fp16(sound: Sound, folder: Path) -> Bundle:
    """The sound bundle's graphs in fp16, with the islands that every export has."""
    _link_core(sound.bundle, folder)
    _lower(folder, sound.manifest, {})
    return open_bundle(folder)


def _lower(folder: Path, manifest: Manifest, islands: dict[str, Islands]) -> None:
    """Write the towers of a bundle in fp16, in place."""
    towers: dict[str, GraphSpec] = {"video": manifest.graphs.video, "text": manifest.graphs.text}
    low, written = folder / ".fp16", []
    low.mkdir()
    for name, graph in towers.items():
        apart = graph.external_data is not None
        target = low / graph.file
        lower_precision(folder / graph.file, target, precision="fp16", islands=islands.get(name), external=apart)
    for file in low.iterdir():
        file.replace(folder / file.name)  # a new file: the right bundle's, linked here before, stays as it is
        written.append(file.name)
    low.rmdir()
    update_manifest(folder, manifest, written, precision="fp16", graph_precision="fp16")


def _link_core(bundle: Bundle, folder: Path, without: Collection[str] = ()) -> None:
    for name in bundle.manifest.files:
        if name not in without:
            link_or_copy(bundle.file(name), folder / name)
