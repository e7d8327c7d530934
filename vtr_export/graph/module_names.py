"""Node -> the PyTorch module it was traced from, by its name in RetrievalModel: video.backbone.ln_pre."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
MODULE = "module"
# A bundle's graph by its file's name -> the part of RetrievalModel that it is. Both halves of a split tower are video.
ROOTS = {"frames": "video", "temporal": "video"}
# Names inside graph/fold.py's FoldedSampler -> those in Sampler.
_FOLDED = (
    (re.compile(r"\.alignment\.values\.(\d+)"), r".alignment.network.blocks.\1.attn"),
    (re.compile(r"\.alignment\.mlps\.(\d+)"), r".alignment.network.blocks.\1.mlp"),
    (re.compile(r"\.alignment\.latent\b"), r".alignment.network.latent"),
    (re.compile(r"\.alignment\.final\b"), r".alignment.network.final.linear"),
)


def root_of(path: Path) -> str:
    """video.onnx -> video, frames.onnx -> video, text.onnx -> text."""
    return ROOTS.get(path.stem, path.stem)


def module_names(graph: ir.Graph, root: str) -> dict[ir.Node, str]:
    """Every node's module. One without a trace of its own has that of its first traced input, else of its first reader,
    else `root`."""
    names = {node: name for node in graph if (name := _own_name(node, root)) is not None}
    for node in graph:
        if node not in names:
            producers = (value.producer() for value in node.inputs if value is not None)
            known = (names[producer] for producer in producers if producer in names)
            readers = (names[use.node] for value in node.outputs for use in value.uses() if use.node in names)
            names[node] = next(known, next(readers, root))
    return names


def _own_name(node: ir.Node, root: str) -> str | None:
    """A lowered graph says it itself; one of torch's exporter holds the scopes, outermost first, the operator last."""
    if MODULE in node.metadata_props:
        return node.metadata_props[MODULE]
    if SCOPES not in node.metadata_props:
        return None
    scopes = ast.literal_eval(node.metadata_props[SCOPES])
    name = scopes[-2] if len(scopes) > 1 else ""
    # Where the exporter lost the module it writes a name of its own.
    return _qualified(name, root) if not name or name.split(".")[0] == root else None


def _qualified(name: str, root: str) -> str:
    """What the wrapper itself does, or calls by another name than `forward`, is the root's own."""
    full = name or root
    for pattern, replacement in _FOLDED:
        full = pattern.sub(replacement, full)
    return full
