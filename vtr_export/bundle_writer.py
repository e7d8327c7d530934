"""Graphs + golden vectors + tokenizer -> a bundle with its manifest, and the README for whoever opens the folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from vtr_runtime.bundle import MANIFEST
from vtr_runtime.manifest import (
    FileEntry,
    Graphs,
    Manifest,
    RerankSpec,
    SamplerSpec,
    file_sha256,
    space_of,
    variant_of,
)
from vtr_runtime.publish import staged_file
from vtr_runtime.targets import GraphPlan
from vtr_runtime.text import CLEANING_STEPS

from .model.config import AlignmentConfig, ModelConfig, RerankConfig
from .provenance import library_versions

README = "README.md"
VERDICT = "Conformance: "  # begins the README's line that `renew_verdict` replaces
VERDICT_SOURCE = "reports/report.html"


def sampler_spec(alignment: AlignmentConfig) -> SamplerSpec:
    """The alignment head as hosts are told of it; its kind can be exported (plan.check_model)."""
    if alignment.kind == "mlp":
        return SamplerSpec(kind="mlp", tower="text", gap="v-t", start=alignment.start, condition="none")
    if alignment.kind != "dits":
        return SamplerSpec()
    return SamplerSpec(
        kind="dits",
        tower="video" if alignment.of_video else "text",
        gap=alignment.gap,
        steps=alignment.steps,
        beta_start=alignment.beta_start,
        beta_end=alignment.beta_end,
        start="normalised" if alignment.of_video else alignment.start,
        condition="text" if alignment.conditioned else "none",
        training_noise=alignment.noise,
        evaluation_noise=alignment.eval_noise,
    )


def left_out(config: ModelConfig, *, rerank: bool) -> list[str]:
    """A line for each part of a model that PyTorch has and the bundle has not."""
    lines, noise = [], sampler_spec(config.alignment).noise_left_out
    if noise:
        lines.append(f"sampler: exported without the noise of {noise}: an embedding is a function of its input")
    if config.rerank.kind != "none" and not rerank:
        lines.append(f"second stage '{config.rerank.kind}': left out, --rerank exports it beside the two towers")
    return lines


def rerank_spec(config: RerankConfig) -> RerankSpec:
    """The second stage as hosts are told of it."""
    assert config.kind != "none"  # plan.check_model
    return RerankSpec(kind=config.kind, weight=config.weight, textual_attention=config.weighs_words)


def write_manifest(
    folder: Path,
    *,
    config: ModelConfig,
    weights_sha256: str,
    graphs: Graphs,
    plan: GraphPlan,
    islands: tuple[str, ...],
    settings: dict[str, object],
    core_files: list[str],
) -> Manifest:
    """Hash the core files and write manifest.json last: a folder without it is no bundle."""
    model = config.model_dump(mode="json")
    sampler = sampler_spec(config.alignment)
    dim = config.backbone.embed_dim
    space = space_of(
        weights_sha256=weights_sha256,
        model=model,
        frames=config.frames,
        text=config.text,
        sampler=sampler,
        normalisation="l2",
        dim=dim,
    )
    manifest = Manifest(
        name=config.backbone.name,
        dim=dim,
        graphs=graphs,
        frames=config.frames,
        text=config.text,
        cleaning_steps=CLEANING_STEPS[config.text.cleaning],
        sampler=sampler,
        model=model,
        weights_sha256=weights_sha256,
        rerank=rerank_spec(config.rerank) if graphs.rerank is not None else None,
        precision=plan.precision,
        graph_precision=plan.graph_precision,
        islands=islands,
        opset=plan.opset,
        space=space,
        variant=variant_of(space, precision=plan.precision, opset=plan.opset),
        versions=library_versions(),
        exporter=settings,
        files={name: _entry(folder / name) for name in sorted(core_files)},
    )
    _save(manifest, folder)
    return manifest


def update_manifest(folder: Path, manifest: Manifest, changed: Collection[str], **entries: object) -> Manifest:
    """Write manifest.json of a bundle whose core files `changed` are others now, or gone, or new; the rest keep their
    hashes. `entries` are further ones of the manifest that change with them."""
    files = {name: entry for name, entry in manifest.files.items() if name not in changed}
    files |= {name: _entry(folder / name) for name in changed if (folder / name).is_file()}
    updated = manifest.model_copy(update={**entries, "files": dict(sorted(files.items()))})
    variant = variant_of(updated.space, precision=updated.precision, opset=updated.opset)
    updated = updated.model_copy(update={"variant": variant})
    _save(updated, folder)
    return updated


def _save(manifest: Manifest, folder: Path) -> None:
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _precision_words(manifest: Manifest) -> str:
    same = manifest.precision == manifest.graph_precision
    graphs = "" if same else f" as a compile hint on {manifest.graph_precision} graphs"
    return f"{manifest.precision}{graphs}, opset {manifest.opset}"


def _second_stage_words(manifest: Manifest) -> str:
    if manifest.rerank is None:
        return ""
    return f"Second stage {manifest.rerank.kind}: total = first + {manifest.rerank.weight:g} x rerank on the best K.\n"


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_sha256(path), size=path.stat().st_size)


def write_readme(folder: Path, manifest: Manifest, verdict: str, made: Sequence[str] = ()) -> None:
    """The bundle's own page: what it is, how it was judged (`verdict`, one line of Markdown), how to use it. `made` has
    a line for each engine."""
    temporal, frames = manifest.model["temporal"]["kind"], manifest.frames
    (folder / README).write_text(
        f"""# {manifest.name}: a text-video retrieval bundle

Temporal head {temporal}; alignment: {manifest.sampler.summary}. {frames.count} frames of {frames.size}x{frames.size},
embeddings of length {manifest.dim} and unit length, {_precision_words(manifest)}. Space `{manifest.space[:16]}`.
{_second_stage_words(manifest)}
{"".join(f"- {line}{chr(10)}" for line in made)}
{_verdict_line(verdict)}

    pip install 'vtr-runtime[cpu]'
    vtr-runtime info .
    vtr-runtime embed . VIDEOS/ -o videos.parquet
    vtr-runtime index . videos.parquet -o videos.vtri
    vtr-runtime search . videos.vtri "a sentence" -k 10

`golden/media/LICENCES.md` states where the golden clips come from and their licences.
""",
        encoding="utf-8",
    )


def renew_verdict(folder: Path, verdict: str, source: str = VERDICT_SOURCE) -> bool:
    """Put another verdict into a bundle's README, in one step; False where it has none. Nothing else is touched.

    `source`: what to open or run to see more.

    StorageError where the folder cannot be written."""
    path = folder / README
    if not path.is_file():
        return False
    lines = path.read_bytes().split(b"\n")
    places = [place for place, line in enumerate(lines) if line.startswith(VERDICT.encode())]
    if not places:
        return False
    lines[places[0]] = _verdict_line(verdict, source).encode()
    with staged_file(path) as staged:
        staged.write_bytes(b"\n".join(lines))
    return True


def _verdict_line(verdict: str, source: str = VERDICT_SOURCE) -> str:
    return f"{VERDICT}{verdict} (`{source}`)."
