"""The ablation's rows: each is a recipe that can be trained, from a row that stands before it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtr_training.recipe import read_recipe

ABLATION = Path(__file__).parents[2] / "benchmarks" / "ablation"


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("ablation_plan", ABLATION / "plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_row_is_a_recipe_of_its_own(plan):
    rows = [row for group in plan.in_rounds(plan.read_sections()) for row in group]
    recipes = [read_recipe(ABLATION / "recipe.toml", row.settings) for row in rows]
    assert len({row.id for row in rows}) == len(rows) > 50
    described = {(recipe.model_dump_json(), row.start) for recipe, row in zip(recipes, rows, strict=True)}
    assert len(described) == len(rows)


def test_a_row_starts_from_one_that_is_trained_before_it(plan):
    done = {plan.STAND_IN}
    for rows in plan.in_rounds(plan.read_sections()):
        assert {row.start for row in rows} <= done
        done |= {row.id for row in rows}


@pytest.mark.parametrize(
    "rows",
    [
        '{id = "a", name = "a"}, {id = "a", name = "b"}',
        '{id = "a", name = "a", start = "b"}, {id = "b", name = "b"}',
    ],
)
def test_rows_that_cannot_be_ordered_are_refused(plan, tmp_path, rows):
    path = tmp_path / "rows.toml"
    path.write_text(f'[[sections]]\ntitle = "t"\nrows = [{rows}]\n')
    with pytest.raises(ValueError, match=r"rows\.toml, a: its id is taken, or"):
        plan.read_sections(path)


@pytest.mark.long
def test_every_row_trains_and_is_measured(plan, tmp_path):
    words = [sys.executable, ABLATION / "run.py", "-o", tmp_path / "out", "--quick", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "out" / "tables.md").read_text()
    for section in plan.read_sections():
        assert f"| {section.title} |" in tables
        for row in section.rows:
            assert f"| {row.name}" in tables
            test = json.loads((tmp_path / "out" / "runs" / row.id / "0" / "test.json").read_text())
            assert ("second_stage" in test) == (row.top_k is not None)
    begun = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best.pt")}
    subprocess.run(words, capture_output=True, check=True, env=environment)  # nothing is trained twice
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best.pt")} == begun
