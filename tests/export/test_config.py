"""Configurations: what open_clip's names mean, and every refusal in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

import vtr_export.model
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    TemporalConfig,
    parse_model_config,
    supported_open_clip_names,
)
from vtr_runtime.errors import ConfigError
from vtr_runtime.manifest import OPENAI_MEAN

TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
RESNET: dict[str, Any] = {
    **TINY,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
}

Change = Callable[[dict[str, Any]], None]


def changed(source: dict[str, Any], change: Change) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(source))
    change(copy)
    return copy


def tiny_model(**settings: Any) -> dict[str, Any]:
    return {
        "backbone": BackboneConfig.from_open_clip(TINY).model_dump(mode="json"),
        "frames": {"count": 8, "size": 32},
        "text": {},
        **settings,
    }


@pytest.mark.parametrize(
    "name",
    [
        *("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14", "ViT-bigG-14", "RN50", "RN101"),
        *("RN50x4", "RN50x16", "RN50x64", "ViT-B-32-quickgelu", "RN50-quickgelu", "ViT-L-14-336-quickgelu"),
    ],
)
def test_the_clip_family_is_read_as_open_clip_has_it(name: str) -> None:
    backbone = BackboneConfig.from_open_clip(name)
    theirs = open_clip.get_model_config(name)
    assert backbone.name == name
    assert backbone.embed_dim == theirs["embed_dim"]
    assert backbone.quick_gelu == name.endswith("-quickgelu")
    assert backbone.mean == OPENAI_MEAN
    for key, value in theirs["vision_cfg"].items():
        assert getattr(backbone.vision, key) == (tuple(value) if isinstance(value, list) else value)
    for key, value in theirs["text_cfg"].items():
        assert getattr(backbone.text, key) == value
    assert name in supported_open_clip_names()


def test_heads_are_those_of_the_published_models() -> None:
    heads = {name: BackboneConfig.from_open_clip(name).vision.heads for name in ("ViT-B-32", "ViT-H-14", "ViT-g-14")}
    heads |= {name: BackboneConfig.from_open_clip(name).vision.heads for name in ("RN50", "RN50x4")}
    assert heads == {"ViT-B-32": 12, "ViT-H-14": 16, "ViT-g-14": 16, "RN50": 32, "RN50x4": 40}


def test_a_slash_is_a_dash() -> None:
    assert BackboneConfig.from_open_clip("ViT-B/32").name == "ViT-B-32"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP", "init_logit_bias to -10, the bias of a sigmoid loss"),
        ("EVA02-B-16", "timm_model_name to 'eva02_base_patch16_clip_224', an image tower from timm"),
        ("convnext_base", "timm_model_name"),
        ("coca_ViT-B-32", r"multimodal_cfg to .*, a captioning decoder \(CoCa\)"),
        ("roberta-ViT-B-32", "hf_model_name to 'roberta-base', a text tower from Hugging Face"),
        ("ViT-L-14-worldwide", "hf_tokenizer_name to 'google/mt5-base', a tokenizer that is not CLIP's BPE"),
        ("ViT-L-14-CLIPA", "no_ln_pre to True"),
        ("ViT-M-16-alt", "ls_init_value to 0.0001, layer scale"),
    ],
)
def test_other_families_are_refused_by_name_and_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is refused: .*{reason}.*only CLIP's plain ViT"):
        BackboneConfig.from_open_clip(name)


@pytest.mark.parametrize(
    ("source", "change", "words"),
    [
        (TINY, lambda c: c["text_cfg"].update(no_causal_mask=True), "no_causal_mask to True"),
        (TINY, lambda c: c["text_cfg"].update(pool_type="last"), "pool_type to 'last'"),
        (TINY, lambda c: c["text_cfg"].update(mystery=1), "text_cfg has the unknown setting mystery"),
        (TINY, lambda c: c["vision_cfg"].update(qk_norm=True), "vision_cfg has the unknown setting qk_norm"),
        (TINY, lambda c: c["vision_cfg"].update(pool_type="avg"), "pooling that is not the class token"),
        (TINY, lambda c: c["vision_cfg"].update(patch_dropout=0.5), "patch dropout"),
        (TINY, lambda c: c.update(decoder={}), "model has the unknown setting decoder"),
        (TINY, lambda c: c.pop("text_cfg"), "has no text_cfg"),
        (TINY, lambda c: c.pop("embed_dim"), "embed_dim: Input should be a valid integer"),
        (TINY, lambda c: c["vision_cfg"].update(image_size=[32, 64]), "image_size: Input should be a valid integer"),
        (TINY, lambda c: c["vision_cfg"].update(head_width=48), "head_width 48 does not divide the 64 channels"),
        (TINY, lambda c: c["vision_cfg"].update(patch_size=64), "needs a patch_size of 1 to 32, not 64"),
        (TINY, lambda c: c["text_cfg"].update(heads=5), "5 heads do not divide the text width 64"),
        (RESNET, lambda c: c["vision_cfg"].update(image_size=48), "32 divides and an even width, not 48 and 8"),
        (RESNET, lambda c: c["vision_cfg"].update(head_width=48), "head_width 48 does not divide the 256 channels"),
        (RESNET, lambda c: c["vision_cfg"].update(layers=[1, 1]), "vision.layers"),
    ],
)
def test_a_configuration_that_is_not_plain_clip_is_refused(source: dict[str, Any], change: Change, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        BackboneConfig.from_open_clip(changed(source, change))
    assert "\n" not in str(caught.value)


def test_a_part_that_is_switched_off_is_accepted() -> None:
    off = {**TINY, "custom_text": True, "text_cfg": {**TINY["text_cfg"], "no_causal_mask": False}}
    assert BackboneConfig.from_open_clip(off) == BackboneConfig.from_open_clip(TINY)


def test_a_resnet_has_no_patches() -> None:
    backbone = BackboneConfig.from_open_clip(changed(RESNET, lambda c: c["vision_cfg"].update(patch_size=16)))
    assert backbone.vision.patch_size is None  # open_clip does not read it either
    given = tiny_model()
    given["backbone"]["vision"] = {**RESNET["vision_cfg"], "patch_size": 16}
    with pytest.raises(ConfigError, match="a ModifiedResNet has no patches, but patch_size is 16"):
        parse_model_config(given)


def test_an_unknown_name_gets_near_misses() -> None:
    with pytest.raises(ConfigError, match=r"no model named 'ViT-B32'; did you mean .*ViT-B-32"):
        BackboneConfig.from_open_clip("ViT-B32")
    with pytest.raises(ConfigError, match="no model named 'qqqq'; only CLIP's plain ViT"):
        BackboneConfig.from_open_clip("qqqq")


def test_a_json_file_is_a_model(tmp_path: Path) -> None:
    bare, whole = tmp_path / "small.json", tmp_path / "whole.json"
    bare.write_text(json.dumps(TINY))
    whole.write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}))
    assert BackboneConfig.from_open_clip(bare).name == "small"
    assert BackboneConfig.from_open_clip(str(whole)).mean == (0.5, 0.5, 0.5)
    assert BackboneConfig.from_open_clip(whole).std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a readable JSON file"),
        ("[1]", "holds a list; give one object"),
        (json.dumps({"model_cfg": TINY, "tokenizer": 1}), "unknown setting tokenizer beside model_cfg"),
        (json.dumps({"model_cfg": [1]}), "has no model"),
        (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"interpolation": "bilinear"}}), "interpolation 'bilinear'"),
        (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"resize_mode": "squash"}}), "resize_mode 'squash'"),
    ],
)
def test_a_bad_json_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        BackboneConfig.from_open_clip(path)


def test_a_missing_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a readable JSON file"):
        BackboneConfig.from_open_clip(tmp_path / "absent.json")


def test_settings_without_effect_are_refused_and_not_written() -> None:
    with pytest.raises(ConfigError, match="temporal: alpha, layers has no effect on kind 'mean'; leave it out"):
        parse_model_config(tiny_model(temporal={"kind": "mean", "layers": 3, "alpha": 0.1}))
    with pytest.raises(ConfigError, match="alignment: steps has no effect on kind 'none'"):
        parse_model_config(tiny_model(alignment={"steps": 3}))
    assert TemporalConfig().model_dump() == {"kind": "mean"}
    assert AlignmentConfig().model_dump() == {"kind": "none"}
    assert set(TemporalConfig(kind="transformer").model_dump()) >= {"kind", "layers", "init"}
    assert "scales" not in TemporalConfig(kind="transformer").model_dump()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temporal": {"kind": "gru"}}, r"temporal.kind: .*(received 'gru')"),
        ({"temporal": {"kind": "mstdt", "alpha": 1.5}}, "temporal.alpha: .*less than or equal to 1 .received 1.5"),
        ({"temporal": {"kind": "mstdt", "scales": [3, 3]}}, r"scales \(3, 3\) name one scale twice"),
        ({"temporal": {"kind": "mstdt", "scales": [1]}}, "scales.0: .*greater than or equal to 2"),
        ({"temporal": {"kind": "mstdt", "variant": "D"}}, "temporal.variant: .*'A', 'B' or 'C' .received 'D'"),
        (
            {"temporal": {"kind": "mstdt", "variant": "C", "short_layers": 2}},
            "temporal: short_layers has no effect in variant C, whose one stack has long_layers",
        ),
        (
            {"temporal": {"kind": "mstdt", "difference": "none", "merge": "interleave"}},
            "temporal: merge 'interleave' has nothing to merge with difference 'none'",
        ),
        (
            {"temporal": {"kind": "mstdt", "merge": "projection", "gate_init": 0.5}},
            "temporal: gate_init has no effect on merge 'projection'",
        ),
        (
            {"temporal": {"kind": "mstdt", "stride": 4}},
            "temporal: stride 4 would leave frames out of subsets of 3; lower it",
        ),
        (
            {"temporal": {"kind": "mstdt", "alpha": 1.0, "alpha_learned": True}},
            "temporal: alpha 1.0 cannot be learned",
        ),
        (
            {"temporal": {"kind": "mstdt", "tail": "drop", "scales": [3, 9], "init": "random"}},
            "temporal.tail 'drop' leaves none of 8 frames at scale 9; set it to 'pad'",
        ),
        ({"temporal": {"kind": "mstdt", "variant": "B", "long_layers": 3}}, r"needs 3 of .*init to 'random'"),
        ({"temporal": {"kind": "mstdt", "heads": 7}}, "temporal.heads 7 does not divide embed_dim 64"),
        ({"temporal": {"kind": "mstdt", "heads": 2}}, r"\(64, 1, 256\), but the head needs 1 of \(64, 2, 256\)"),
        ({"temporal": {"kind": "transformer"}}, r"from 2 text blocks .* head needs 4 of .*init to 'random'"),
        ({"alignment": {"kind": "dits", "heads": 7}}, "alignment.heads 7 does not divide embed_dim 64"),
        ({"alignment": {"kind": "dits", "noise": "sigma"}}, "alignment.noise"),
        ({"frames": {"size": 48}}, "frames.size is 48, but the backbone custom needs 32"),
        ({"frames": {"size": 32, "mean": [0, 0, 0]}}, "frames.mean is "),
        ({"frames": {"size": 32, "std": [1, 1, 1]}}, "frames.std is "),
        ({"text": {"context_length": 32}}, "text.context_length is 32, but the backbone custom needs 77"),
        ({"text": {"vocab_size": 100}}, "text.vocab_size is 100, but the backbone custom needs 49408"),
        ({"text": {"end_id": 49408}}, r"\(49406, 49408\) must be two ids below the vocabulary's 49408"),
        ({"frames": {"size": 32, "count": 78}, "temporal": {"kind": "mstdt"}}, "needs 78 of width 64; .*'normal'"),
        ({"backbone": {}}, "backbone.name: Field required"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_model_configuration_that_cannot_be_honoured_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_model_config(tiny_model(**settings))
    assert str(caught.value).startswith("the model configuration cannot be used: ")
    assert "\n" not in str(caught.value)


def test_text_layers_are_copied_only_between_equal_widths() -> None:
    backbone = BackboneConfig.from_open_clip("RN50")  # text 512, joint 1024
    with pytest.raises(ConfigError, match=r"77 positions of width 512, .* 12 of width 1024"):
        ModelConfig.from_backbone(backbone, temporal=TemporalConfig(kind="mstdt"))
    with pytest.raises(ConfigError, match=r"set temporal\.init to 'random'"):
        ModelConfig.from_backbone(backbone, temporal=TemporalConfig(kind="mstdt", position_init="normal"))
    free = TemporalConfig(kind="mstdt", position_init="normal", init="random")
    assert ModelConfig.from_backbone(backbone, temporal=free).temporal.heads_for(1024) == 16


def test_the_defaults_are_the_papers() -> None:
    temporal, alignment = TemporalConfig(kind="mstdt"), AlignmentConfig(kind="dits")
    assert (temporal.variant, temporal.scales, temporal.alpha, temporal.stacks) == ("A", (3, 4, 6), 0.5, (1, 1))
    assert (temporal.difference, temporal.merge, temporal.tail, temporal.pool) == ("guide", "add", "pad", "mean")
    assert (temporal.normalise, temporal.short_residual, temporal.alpha_learned) == (True, False, False)
    assert (alignment.steps, alignment.beta_start, alignment.beta_end) == (10, 0.1, 0.99)
    assert (alignment.blocks, alignment.heads, alignment.mlp_ratio) == (4, 16, 4.0)
    assert (alignment.start, alignment.noise) == ("raw", "none")
    assert TemporalConfig(kind="transformer").layers == 4


@pytest.mark.parametrize(
    ("settings", "stacks"),
    [
        ({}, (1, 1)),
        ({"variant": "B"}, (2, 2)),
        ({"variant": "C"}, (4, 4)),
        ({"variant": "B", "short_layers": 1, "long_layers": 3}, (1, 3)),
        ({"short_layers": 3}, (3, 1)),
        ({"variant": "C", "long_layers": 2}, (2, 2)),
    ],
)
def test_a_variant_says_how_deep_its_stacks_are(settings: dict[str, Any], stacks: tuple[int, int]) -> None:
    config = TemporalConfig(kind="mstdt", **settings)
    assert config.stacks == stacks
    assert config.depth == max(stacks)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("mean", {"heads": 2}),
        ("lstm", {"layers": 1}),
        ("lstm", {"init": "text"}),
        ("lstm", {"position_init": "normal"}),
        ("transformer", {"variant": "A"}),
        ("transformer", {"alpha_learned": False}),
        ("transformer", {"stride": 1}),
        ("mstdt", {"layers": 4}),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(kind: str, setting: dict[str, Any]) -> None:
    [name] = setting
    with pytest.raises(ConfigError, match=f"temporal: {name} has no effect on kind '{kind}'; leave it out"):
        parse_model_config(tiny_model(temporal={"kind": kind, **setting}))
    assert TemporalConfig(kind="lstm").model_dump() == {"kind": "lstm"}


def test_a_configuration_survives_json() -> None:
    for source in (TINY, RESNET):
        config = ModelConfig.from_backbone(
            BackboneConfig.from_open_clip(source),
            frames=5,
            temporal=TemporalConfig(kind="mstdt", scales=(2, 3), alpha=0.4, merge="interleave", stride=1, tail="drop"),
            alignment=AlignmentConfig(kind="dits", steps=3, start="normalised"),
        )
        assert parse_model_config(json.loads(config.model_dump_json())) == config


def test_every_setting_is_described() -> None:
    for record in (TemporalConfig, AlignmentConfig):
        assert all(field.description for field in record.model_fields.values())
        assert all(names <= set(record.model_fields) for names in record.applies.values())


def test_public_names_load_and_a_configuration_needs_no_torch() -> None:
    assert all(getattr(vtr_export.model, name).__name__ == name for name in vtr_export.model.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        vtr_export.model.absent  # noqa: B018
    code = (
        "import sys, vtr_export.model.config; from vtr_export.model import ModelConfig; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_the_sampling_reaches_the_configuration() -> None:
    config = ModelConfig.from_backbone(BackboneConfig.from_open_clip(TINY), frames=4, sampling="fps1")
    assert (config.frames.count, config.frames.sampling) == (4, "fps1")
    with pytest.raises(ConfigError, match=r"frames\.sampling"):
        parse_model_config({**config.model_dump(), "frames": {**config.frames.model_dump(), "sampling": "middle"}})
