"""open_clip's ViT weights as a transformers checkpoint: CLIPVisionModelWithProjection, the same function.

    OPTIMUM_PYTHON hugging_face.py weights.pt folder

Runs in the interpreter where optimum and transformers are, which is another than the project's."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

HEAD_WIDTH = 64
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def main(weights: Path, folder: Path) -> None:
    """Write the checkpoint; loading is strict, so that nothing is left at random."""
    source = torch.load(weights, weights_only=True)
    source = {name.removeprefix("visual."): value for name, value in source.items() if name.startswith("visual.")}
    width, _, patch, _ = source["conv1.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in source if name.startswith("transformer.resblocks."))
    side = round((len(source["positional_embedding"]) - 1) ** 0.5)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=source["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        patch_size=patch,
        image_size=patch * side,
        projection_dim=source["proj"].shape[1],
        hidden_act="quick_gelu",
    )
    model = CLIPVisionModelWithProjection(config)
    model.load_state_dict(_rename(source, layers))
    model.save_pretrained(folder)


def _rename(source: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    embeddings, root = "vision_model.embeddings", "vision_model"
    target = {
        f"{embeddings}.class_embedding": source["class_embedding"],
        f"{embeddings}.patch_embedding.weight": source["conv1.weight"],
        f"{embeddings}.position_embedding.weight": source["positional_embedding"],
        "visual_projection.weight": source["proj"].T,
    }
    for kind in ("weight", "bias"):
        target[f"{root}.pre_layrnorm.{kind}"] = source[f"ln_pre.{kind}"]
        target[f"{root}.post_layernorm.{kind}"] = source[f"ln_post.{kind}"]
        for layer in range(layers):
            here, there = f"transformer.resblocks.{layer}", f"{root}.encoder.layers.{layer}"
            for name, renamed in BLOCK.items():
                target[f"{there}.{renamed}.{kind}"] = source[f"{here}.{name}.{kind}"]
            for part, values in zip("qkv", source[f"{here}.attn.in_proj_{kind}"].chunk(3), strict=True):
                target[f"{there}.self_attn.{part}_proj.{kind}"] = values
    return target


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
