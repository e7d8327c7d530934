"""The commands, in this process."""

import json
import subprocess
import sys

import pytest
import tomli_w

from vtr_training import loop
from vtr_training.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def config(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(tomli_w.dumps({**settings, "steps": 2}))
    return path


@pytest.fixture(scope="module")
def best(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "run"
    assert run("fit", config, "-o", folder) == 0
    return folder / "best.pt"


def test_fit_and_evaluate_print_json(config, demo, tmp_path, capsys):
    assert run("fit", config, "--set", "seed=1", "-o", tmp_path / "run", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["best"] == str(tmp_path / "run" / "best.pt")
    assert made["steps"] == 2
    assert run("evaluate", made["best"], "--data", demo, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["t2v"]["queries"], found["v2t"]["gallery"], found["unreadable"]) == (20, 20, [])
    assert 0 <= found["Rsum"] <= 600
    kinds = found["within_groups_r1"]
    assert set(kinds) == {"left-right", "up-down", "grow-shrink", "fade", "all"}
    assert {kind["order_blind"] for kind in kinds.values()} == {0.25}


def test_evaluate_prints_tables_and_names_what_it_skips(best, demo, tmp_path, capsys):
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    lines = [{**line, "video": str(demo / line["video"])} for line in lines if line["split"] == "val"]
    lines.append({"video": "absent.mp4", "captions": ["a clip that is not there", "twice"], "split": "val"})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("evaluate", best, "--data", tmp_path, "--split", "val") == 0
    said = capsys.readouterr()
    assert said.err.count("skipped: ") == 1
    assert "absent.mp4" in said.err
    assert "text to video" in said.out
    assert "ceiling without order" in said.out


def test_evaluate_with_nothing_readable(best, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"video": "absent.mp4", "captions": ["x"], "split": "test"}')
    assert run("evaluate", best, "--data", tmp_path) == 1
    assert "none of the 1 clips can be read" in capsys.readouterr().err


def test_demo_data(tmp_path, capsys):
    assert run("demo-data", tmp_path / "data", "--clips", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["clips"] == {"train": 4, "val": 96, "test": 184}
    assert run("demo-data", tmp_path / "data", "--clips", "4") == 2
    assert "exists already" in capsys.readouterr().err
    assert run("demo-data", tmp_path / "other", "--clips", "5") == 2
    assert "give a multiple" in capsys.readouterr().err


def test_an_interrupted_fit_ends_with_130(config, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", interrupted)
    assert run("fit", config, "-o", tmp_path / "run") == 130
    assert "interrupted" in capsys.readouterr().err


def test_wrong_use_ends_with_2(config, tmp_path, capsys):
    assert run("fit", config, "--set", "optim.rate=1", "-o", tmp_path / "run") == 2
    assert "optim.rate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run("fit", tmp_path / "absent.toml", "-o", tmp_path / "run") == 2


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from vtr_training.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'av', 'pydantic', 'open_clip', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
