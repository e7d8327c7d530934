"""`vtr-runtime info`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import echo_json, json_option, table
from .options import bundle_argument

if TYPE_CHECKING:
    from ..manifest import Manifest

SAMPLED = {"uniform": "uniform over the clip", "fps1": "one a second, and of more evenly many"}


@click.command()
@bundle_argument
@json_option
def info(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and say what is in it."""
    from ..backends import BackendOptions, choose_here
    from ..bundle import open_bundle
    from ..engines.record import ENGINES, find_engines

    opened = open_bundle(bundle)
    manifest = opened.manifest
    if as_json:
        echo_json(manifest.model_dump(mode="json"))
        return
    frames, text, sampler = manifest.frames, manifest.text, manifest.sampler
    temporal = manifest.model.get("temporal", {}).get("kind", "?")
    rows = [
        ("model", f"{manifest.name}, temporal head {temporal}, embeddings of length {manifest.dim}"),
        ("frames", f"{frames.count} of {frames.size}x{frames.size}, {SAMPLED[frames.sampling]}, {frames.resize}"),
        ("text", f"at most {text.context_length} tokens, cleaning {text.cleaning}"),
        ("sampler", sampler.summary),
        ("second stage", _second_stage(manifest)),
        ("precision", f"{manifest.precision}, graphs in {manifest.graph_precision}, opset {manifest.opset}"),
        ("graphs", ", ".join(manifest.graphs.named())),
        ("engines", ", ".join(record.id for _, record in find_engines(bundle / ENGINES)) or "none"),
        ("backend here", choose_here(opened, BackendOptions()).summary),
        ("space", manifest.space),
        ("variant", manifest.variant),
        ("size", f"{sum(entry.size for entry in manifest.files.values()) / 1e6:.1f} MB, every file's sha256 agrees"),
        ("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]
    table(str(bundle), ("", ""), rows)


def _second_stage(manifest: Manifest) -> str:
    if manifest.rerank is None:
        return "none"
    weights = ", with weights of words" if manifest.rerank.textual_attention else ""
    return f"{manifest.rerank.kind}{weights}, joined with weight {manifest.rerank.weight:g}"
