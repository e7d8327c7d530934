from pathlib import Path

import pytest

from vtr_runtime.errors import ConfigError
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
    assert (recipe.data.spec, recipe.optim.lr) == (Path("other"), 1e-3)


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
        ("optim.rate=3", "optim.rate: Extra inputs"),
        ("optim.lr=-1", "optim.lr: "),
        ("optim.lr=nan", "optim.lr: "),
        ("batches.groups_from=2", "batches.groups_from: "),
        ("validation.metric=r1", "validation.metric: "),
        ("model.temporal.kind=lstm", "model.temporal"),
    ],
)
def test_a_bad_override_is_named(smallest, override, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(smallest, [override])


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_are_valid(path):
    recipe = read_recipe(path)
    assert recipe.data.spec.name == "data"
    assert recipe.model.temporal.kind == ("mstdt" if "mstdt" in path.stem else "mean")


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


def test_every_recipe_can_be_read_and_built() -> None:
    """With random weights: the pretrained ones are not at hand everywhere."""
    from vtr_training.loop import build_model

    assert len(RECIPES) >= 3
    for path in RECIPES:
        settings = read_recipe(path).model.model_copy(update={"pretrained": None})
        model = build_model(settings)
        assert model.config.temporal.kind in path.stem
