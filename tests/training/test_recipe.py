import re
from pathlib import Path

import pytest
import torch

from vtr_runtime.errors import ConfigError
from vtr_training.data.protocols import PROTOCOLS
from vtr_training.data.spec import parse_spec
from vtr_training.model_config import model_config
from vtr_training.recipe import Recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))

SMALLEST = """
steps = 10
[data]
spec = "clips"
[model]
backbone = "ViT-B-32-quickgelu"
"""


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(SMALLEST)
    return path


def test_defaults_are_those_of_fine_tuning(smallest):
    recipe = read_recipe(smallest)
    assert recipe.model.temporal.kind == "mean"
    assert (recipe.optim.clip_lr, recipe.optim.weight_decay, recipe.optim.betas) == (1e-6, 0.2, (0.9, 0.98))
    assert recipe.batches.groups_from is None
    assert recipe.data.val == "val"


def test_set_reads_toml_values_and_bare_words(smallest):
    recipe = read_recipe(
        smallest,
        [
            "steps=20",
            "model.temporal.kind=mstdt",
            "model.temporal.scales=[2, 3]",
            'data.spec="other"',
            "optim.lr = 1e-3",
            'model.alignment={kind="dits", steps=5}',
        ],
    )
    assert recipe.steps == 20
    assert (recipe.model.temporal.kind, recipe.model.temporal.scales) == ("mstdt", (2, 3))
    assert recipe.model.alignment.steps == 5
    assert (recipe.data.spec, recipe.optim.lr) == ("other", 1e-3)


def test_set_to_nothing_takes_a_key_out(smallest):
    smallest.write_text(SMALLEST + 'pretrained = "openai"\n')
    assert read_recipe(smallest).model.pretrained == "openai"
    assert read_recipe(smallest, ["model.pretrained="]).model.pretrained is None
    assert read_recipe(smallest, ["seed="]).seed == 0


def test_a_recipe_survives_json(smallest):
    recipe = read_recipe(smallest, ["model.temporal.kind=mstdt"])
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "is not key=value"),
        ("=3", "is not key=value"),
        ("optim..lr=3", "is not key=value"),
        ("steps.deep=3", "steps is a value"),
        ("steps=0", "steps: "),
        ("steps=many", "steps: "),
        ("optim.rate=3", r"optim\.rate is no key; known are lr, clip_lr"),
        ("optim.clip_rate=3", r"optim\.clip_rate is no key; did you mean clip_lr\?"),
        ("model.temporal.scale=[3]", r"model\.temporal\.scale is no key; did you mean scales\?"),
        ("loss.bsl.temprature=1", r"loss\.bsl\.temprature is no key; did you mean temperature\?"),
        ("step=3", r"step is no key; did you mean steps\?"),
        ("batches.size=1", r"batches\.size: Input should be greater than or equal to 2"),
        ("optim.lr=-1", "optim.lr: "),
        ("optim.lr=nan", "optim.lr: "),
        ("batches.groups_from=2", "batches.groups_from: "),
        ("validation.metric=r1", "validation.metric: "),
        ("model.temporal.kind=gru", "model.temporal"),
    ],
)
def test_a_bad_override_is_named(smallest, override, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(smallest, [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation.top_k=10"], r"validation\.top_k has no effect without a second stage"),
        (["loss.rerank=negnce"], r"loss\.rerank has no effect without a second stage"),
        (["loss.rerank_weight=2"], r"loss\.rerank_weight has no effect"),
        (["loss.contrastive=negnce", "loss.negnce.hard_from=rerank"], "hard_from has no effect without a second stage"),
        (["loss.negnce.negative=1.0"], r"loss\.negnce has no effect without the loss 'negnce'"),
        (["loss.bsl.threshold=0.5", "loss.bsl.direction=reversed"], r"loss\.bsl: KL\(P \|\| Q\) is infinite"),
        (["loss.gap.until=0.5"], r"loss\.gap\.until has no effect without model\.alignment\.kind 'diffusion'"),
        (["optim.freeze=['alignment']"], "names 'alignment', of which this model has no weights"),
        (["optim.freeze=['temporal']"], "names 'temporal', of which this model has no weights"),
        (["optim.freeze=['image', 'text']"], "names every part, so nothing is left to train"),
        (
            ["model.rerank.kind=x-pool", "optim.freeze=['image', 'text']"],
            r"only the second stage is trained .*: set validation\.top_k",
        ),
        (["optim.freeze=['clip']"], r"optim\.freeze\.0: Input should be 'image'"),
        (["model.pretrained=openai", "model.start_from=best.pt"], "pretrained and start_from both say"),
        (["model.temporal.kind=mean", "model.temporal.alpha=0.3"], "alpha has no effect on kind 'mean'"),
        (["model.alignment={kind='dits', gap='t-v', condition='text'}"], "would embed each video anew"),
    ],
)
def test_settings_that_contradict_each_other_are_named(smallest, overrides, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(smallest, overrides)


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(ConfigError, match=r"recipe\.toml cannot be read \(No such file"):
        read_recipe(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(path)
    path.write_text("steps = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_recipe(path)
    path.write_text("steps = 3")
    with pytest.raises(ConfigError, match="model: Field required"):
        read_recipe(path)


PUBLISHED = [path for path in RECIPES if not path.stem.startswith(("demo-", "clip-"))]
HEADS = {"mstdt": "mstdt", "clip4clip-transformer": "transformer", "clip4clip-lstm": "lstm", "dmae": "transformer"}
STAGES = {"xpool": "x-pool", "dmae": "token-wise"}


def named(stem: str, kinds: dict[str, str]) -> str | None:
    return next((kind for name, kind in kinds.items() if name in stem), None)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_are_valid(path):
    recipe = read_recipe(path)
    model_config(recipe.model)
    assert recipe.model.temporal.kind == (named(path.stem, HEADS) or "mean")
    if path not in PUBLISHED:
        assert Path(recipe.data.spec).name == "data"


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_setting_keeps_to_its_papers_protocol(path):
    """Data set and backbone by the file's name; frames by the paper: CLIP4Clip's one a second, DITS's and TGIF's
    evenly, 64 for CLIP4Clip's paragraphs; five passes over the captions that are left to train on."""
    recipe, stem = read_recipe(path), path.stem
    spec = parse_spec(recipe.data.spec)
    assert stem.startswith(spec.name.removesuffix("-tmass") + "-")
    train = PROTOCOLS[spec.name].splits["train"]
    assert recipe.data.val == "val"
    assert spec.held_out == (0 if "val" in PROTOCOLS[spec.name].splits else 500)
    paragraphs = spec.name in ("didemo", "activitynet")
    assert recipe.model.frames == (64 if paragraphs else 12)
    assert recipe.model.sampling == ("uniform" if "dits" in stem or spec.name == "tgif" else "fps1")
    assert recipe.model.backbone == ("ViT-B-16-quickgelu" if stem.endswith("b16") else "ViT-B-32-quickgelu")
    assert recipe.model.alignment.kind == ("dits" if "dits" in stem else "none")
    assert recipe.model.rerank.kind == (named(stem, STAGES) or "none")
    assert recipe.batches.size == (32 if "dits" in stem else 128)
    assert recipe.optim.clip_lr == 1e-6
    captions = train.captions or train.videos
    left = captions if train.videos is None else captions * (train.videos - spec.held_out) // train.videos
    assert recipe.steps == 5 * left // recipe.batches.size
    assert 8 <= recipe.steps / recipe.validation.every <= 14


def test_every_published_setting_stands_in_the_docs():
    told = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert {path.stem for path in PUBLISHED} == {
        stem
        for stem in re.findall(r"`([a-z0-9-]+)`", told)
        if stem.split("-")[0] in {p.stem.split("-")[0] for p in PUBLISHED}
    }


def test_there_are_shipped_recipes():
    assert {path.stem for path in RECIPES} >= {"demo-mstdt-dits", "demo-mean"}


def test_every_setting_is_described():
    def undescribed(model, name):
        for key, field in model.model_fields.items():
            nested = field.annotation if isinstance(field.annotation, type) else None
            if nested is not None and hasattr(nested, "model_fields"):
                yield from undescribed(nested, f"{name}.{key}")
            elif not field.description:
                yield f"{name}.{key}"

    assert list(undescribed(Recipe, "recipe")) == []


def test_every_recipe_can_be_built() -> None:
    """Without memory for the weights, each configuration once: all files of a size are as large as CLIP."""
    from vtr_training.loop import build_model

    built = {}
    for path in RECIPES:
        settings = read_recipe(path).model.model_copy(update={"pretrained": None, "start_from": None})
        key = settings.model_dump_json()
        if key not in built:
            with torch.device("meta"):
                built[key] = build_model(settings)
        assert built[key].config.temporal.kind == settings.temporal.kind
        assert (built[key].rerank is None) == (settings.rerank.kind == "none")
    assert len(built) > 10
