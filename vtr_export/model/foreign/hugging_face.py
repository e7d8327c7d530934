"""The weights of transformers.CLIPModel under the names of open_clip.CLIP."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vtr_runtime.errors import CheckpointError

_WHOLE = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
}
_BEGINNINGS = {
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # spelt so
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
}
_IN_BLOCK = {
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_TRANSPOSED = ("visual_projection.weight", "text_projection.weight")


def rename_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of a block become one matrix, projections [D, width] become [width, D]; a name that
    transformers.CLIPModel does not have stays. Raises CheckpointError where a key or value projection is missing."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if ".self_attn.q_proj." in name:
            parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
            missing = [part for part in parts if part not in weights]
            if missing:
                raise CheckpointError(f"{missing[0]} is missing")
            joined = _rename(name).replace(".self_attn.q_proj.", ".attn.in_proj_")
            renamed[joined] = torch.cat([weights[part] for part in parts])
        elif not (".self_attn.k_proj." in name or ".self_attn.v_proj." in name):
            renamed[_rename(name)] = value.T if name in _TRANSPOSED else value
    return renamed


def _rename(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    for beginning, ours in _BEGINNINGS.items():
        if name.startswith(beginning):
            name = ours + name.removeprefix(beginning)
            for part, own in _IN_BLOCK.items():
                name = name.replace(part, own)
    return name
