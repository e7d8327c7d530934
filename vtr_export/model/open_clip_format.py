"""open_clip's model configurations -> the fields of a BackboneConfig, or a refusal by name and reason."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_runtime.errors import ConfigError

# Parts that CLIP's own models do not have: (the value that means "not there", what the value brings in).
_FOREIGN_PARTS: dict[str, dict[str, tuple[Any, str]]] = {
    "model": {
        "multimodal_cfg": (None, "a captioning decoder (CoCa)"),
        "init_logit_bias": (None, "the bias of a sigmoid loss (SigLIP)"),
        "nonscalar_logit_scale": (False, "a logit scale with an axis"),
    },
    "vision_cfg": {
        "timm_model_name": (None, "an image tower from timm"),
        "ls_init_value": (None, "layer scale"),
        "patch_dropout": (0.0, "patch dropout"),
        "attentional_pool": (False, "attentional pooling"),
        "no_ln_pre": (False, "an image tower without its first LayerNorm"),
        "pos_embed_type": ("learnable", "positions that are not learned"),
        "final_ln_after_pool": (False, "pooling before the last LayerNorm"),
        "pool_type": ("tok", "pooling that is not the class token"),
        "output_tokens": (False, "token outputs"),
        "act_kwargs": (None, "another activation"),
        "norm_kwargs": (None, "another normalisation"),
        "block_type": (None, "another transformer block"),
    },
    "text_cfg": {
        "hf_model_name": (None, "a text tower from Hugging Face"),
        "hf_tokenizer_name": (None, "a tokenizer that is not CLIP's BPE"),
        "tokenizer_mode": (None, "another tokenizer mode"),
        "tokenizer_kwargs": (None, "another tokenizer set-up"),
        "ls_init_value": (None, "layer scale"),
        "embed_cls": (False, "a class token in the text (CoCa)"),
        "pad_id": (0, "padding that is not 0"),
        "no_causal_mask": (False, "a text tower without the causal mask"),
        "final_ln_after_pool": (False, "pooling before the last LayerNorm"),
        "pool_type": ("argmax", "pooling that is not the end-of-text token"),
        "proj_bias": (False, "a projection with a bias"),
        "proj_type": ("linear", "a text tower without its projection"),
        "output_tokens": (False, "token outputs"),
        "act_kwargs": (None, "another activation"),
        "norm_kwargs": (None, "another normalisation"),
        "block_type": (None, "another transformer block"),
    },
}
_OWN_PARTS = {
    "model": frozenset({"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text"}),
    "vision_cfg": frozenset({"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size"}),
    "text_cfg": frozenset({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}),
}
_VISION_DEFAULTS = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}
_TEXT_DEFAULTS = {"width": 512, "heads": 8, "layers": 12}
_SUPPORTED = "only CLIP's plain ViT and ModifiedResNet models are supported, such as ViT-B-32, ViT-L-14 or RN50"


def read_open_clip_config(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A model name, a JSON file or a dict -> the fields of a BackboneConfig, not yet checked. Raises ConfigError."""
    name, model, preprocess = _find(source)
    _refuse_foreign_parts(name, model)
    _refuse_foreign_preprocessing(name, preprocess)
    vision = {**_VISION_DEFAULTS, **_own(model["vision_cfg"], "vision_cfg")}
    if not isinstance(vision["layers"], int):  # a ModifiedResNet, for which open_clip does not read these
        vision.pop("patch_size")
        vision.pop("mlp_ratio", None)
    return {
        "name": name,
        "embed_dim": model.get("embed_dim"),
        "quick_gelu": model.get("quick_gelu", False),
        "vision": vision,
        "text": {**_TEXT_DEFAULTS, **_own(model["text_cfg"], "text_cfg")},
        **{key: preprocess[key] for key in ("mean", "std") if key in preprocess},
    }


def supported_open_clip_names() -> list[str]:
    """The open_clip model names that are not refused."""
    import open_clip

    def accepted(name: str) -> bool:
        try:
            read_open_clip_config(name)
        except ConfigError:
            return False
        return True

    return [name for name in open_clip.list_models() if accepted(name)]


def _find(source: str | Path | Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Name, model configuration and preprocessing, whichever way they were given."""
    if isinstance(source, Mapping):
        name, given = "custom", source
    elif str(source).endswith(".json"):
        name, given = Path(source).stem, _read_json(Path(source))
    else:
        name, given = _built_in_config(str(source))
    if "model_cfg" not in given:
        return name, given, {}
    unknown = sorted(given.keys() - {"model_cfg", "preprocess_cfg"})
    if unknown:
        raise ConfigError(f"{name} is refused: it has the unknown setting {unknown[0]} beside model_cfg; take it out")
    return name, given["model_cfg"], given.get("preprocess_cfg") or {}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable JSON file ({error}); give open_clip's model format") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} holds a {type(given).__name__}; give one object in open_clip's model format")
    return given


def _built_in_config(source: str) -> tuple[str, Mapping[str, Any]]:
    import open_clip

    name = source.replace("/", "-")  # open_clip's own habit: ViT-B/32 is ViT-B-32
    given = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if given is None:
        near = difflib.get_close_matches(name, supported_open_clip_names(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else _SUPPORTED
        raise ConfigError(f"open_clip has no model named '{source}'; {hint}")
    return name, given


def _refuse_foreign_parts(name: str, model: Mapping[str, Any]) -> None:
    nested = model if isinstance(model, Mapping) else {}
    parts = {"model": model, "vision_cfg": nested.get("vision_cfg"), "text_cfg": nested.get("text_cfg")}
    for part, given in parts.items():
        if not isinstance(given, Mapping):
            raise ConfigError(f"the model configuration {name} has no {part}; give open_clip's model format")
        for key, (absent, brings) in _FOREIGN_PARTS[part].items():
            if given.get(key, absent) != absent:
                raise ConfigError(f"{name} is refused: {part} sets {key} to {given[key]!r}, {brings}; {_SUPPORTED}")
    for part, given in parts.items():
        unknown = sorted(set(given or ()) - _OWN_PARTS[part] - set(_FOREIGN_PARTS[part]))
        if unknown:
            raise ConfigError(f"{name} is refused: {part} has the unknown setting {unknown[0]}; {_SUPPORTED}")


def _refuse_foreign_preprocessing(name: str, preprocess: Mapping[str, Any]) -> None:
    for key, wanted in (("interpolation", "bicubic"), ("resize_mode", "shortest"), ("mode", "RGB")):
        if preprocess.get(key, wanted) != wanted:
            raise ConfigError(
                f"{name} is refused: its images are prepared with {key} {preprocess[key]!r}, supported is {wanted!r}"
            )


def _own(given: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in _OWN_PARTS[part]}
