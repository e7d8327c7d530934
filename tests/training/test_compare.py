import json
import statistics

import pytest

from vtr_export.model.config import TemporalConfig
from vtr_runtime.errors import DataError
from vtr_training.cli import main
from vtr_training.compare import cells, compare_runs, markdown, sort_out


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def evaluation(r1, *, queries=100, group=None):
    t2v = {"queries": queries, "gallery": 50, "R@1": r1, "R@5": r1 + 20, "R@10": r1 + 30, "MdR": 2.0, "MnR": 70 - r1}
    made = {"t2v": t2v, "v2t": {**t2v, "R@1": r1 + 1}, "Rsum": 6 * r1 + 100}
    if group is not None:
        made["within_groups_r1"] = {"all": {"queries": queries, "t2v": group, "v2t": 0.5, "order_blind": 0.25}}
    return made


@pytest.fixture
def make_run(tmp_path):
    def make(name, r1, *, seed=0, kind="mean", spec="/a/data", test=None, group=None, memory=2**30, **settings):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        recipe = {
            "seed": seed,
            "data": {"spec": spec, "val": "val", "cache": f"/cache/{name}"},
            "model": {"temporal": {"kind": kind}, "start_from": None, "layers": [1, 2]},
            **settings,
        }
        summary = {
            "metric": "rsum",
            "best_step": 5,
            "best_value": 1.0,
            "steps": 10,
            "seconds_per_step": 0.1 * (1 + seed),
            "peak_memory_bytes": None if memory is None else memory * (1 + seed),
            "device": "cpu",
            "skipped": 0,
            "parameters": {"total": 2_000_000, "trained": 1_500_000, "by_part": {}},
            "validation": evaluation(r1, group=group),
        }
        (folder / "recipe.json").write_text(json.dumps(recipe))
        (folder / "summary.json").write_text(json.dumps(summary))
        if test is not None:
            (folder / "test.json").write_text(json.dumps(evaluation(test)))
        return folder

    return make


def test_seeds_are_one_row_with_the_sample_deviation(make_run):
    recalls = (40.0, 43.0, 47.5)
    folders = [make_run(f"mean-{seed}", r1, seed=seed, group=r1 / 100) for seed, r1 in enumerate(recalls)]
    folders.insert(1, make_run("mstdt", 50.0, kind="mstdt"))
    mean, mstdt = compare_runs(folders)
    assert (mean.changed, mstdt.changed) == ({"model.temporal.kind": "mean"}, {"model.temporal.kind": "mstdt"})
    assert (mean.seeds, mstdt.seeds) == ((0, 1, 2), (0,))
    for name, values in {
        "T2V R@1": recalls,
        "T2V R@5": [r1 + 20 for r1 in recalls],
        "T2V R@10": [r1 + 30 for r1 in recalls],
        "T2V MdR": (2.0, 2.0, 2.0),
        "T2V MnR": [70 - r1 for r1 in recalls],
        "V2T R@1": [r1 + 1 for r1 in recalls],
        "Rsum": [6 * r1 + 100 for r1 in recalls],
        "group R@1": recalls,
    }.items():
        assert mean.validation[name].mean == pytest.approx(statistics.mean(values))
        assert mean.validation[name].sd == pytest.approx(statistics.stdev(values))
    assert mstdt.validation["Rsum"].mean == 400
    assert mstdt.validation["Rsum"].sd is None
    assert "group R@1" not in mstdt.validation
    assert mean.seconds_per_step == pytest.approx(0.2)
    assert mean.peak_memory_bytes == 3 * 2**30


def test_folders_of_files_do_not_part_runs_but_their_names_do(make_run):
    same = [make_run("a", 40, seed=0), make_run("b", 40, seed=1, spec="/elsewhere/data")]
    assert len(compare_runs(same)) == 1
    rows = compare_runs([*same, make_run("c", 40, seed=2, spec="/a/other.jsonl")])
    assert [row.changed for row in rows] == [{"data.spec": "data"}, {"data.spec": "other.jsonl"}]


def test_data_of_another_size_is_other_data(make_run):
    folders = [make_run("a", 40, seed=0), make_run("b", 40, seed=1)]
    summary = json.loads((folders[1] / "summary.json").read_text())
    summary["validation"] = evaluation(40, queries=99)
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    assert [row.changed for row in compare_runs(folders)] == [{"validation captions": 100}, {"validation captions": 99}]


def test_a_key_that_one_recipe_lacks_is_a_difference(make_run):
    rows = compare_runs([make_run("a", 40), make_run("b", 40, seed=1, loss={"bsl": {"weight": 0.2}})])
    assert [row.changed for row in rows] == [{"loss.bsl.weight": None}, {"loss.bsl.weight": 0.2}]


def test_test_figures_need_every_run_of_the_group(make_run):
    one = make_run("a", 40, seed=0, test=30.0)
    assert compare_runs([one])[0].test["T2V R@1"].mean == 30
    assert compare_runs([one, make_run("b", 41, seed=1)])[0].test is None
    both = compare_runs([one, make_run("c", 41, seed=2, test=33.0)])[0].test["T2V R@1"]
    assert (both.mean, both.sd) == (31.5, pytest.approx(statistics.stdev([30, 33])))


def test_the_same_seed_twice_is_refused(make_run):
    with pytest.raises(DataError, match="one recipe and seed 0; name one of them"):
        compare_runs([make_run("a", 40), make_run("b", 41)])


def test_what_is_no_finished_run_is_told(make_run, tmp_path):
    good, unfinished, damaged = make_run("good", 40), make_run("unfinished", 1), make_run("damaged", 1)
    (unfinished / "summary.json").unlink()
    (damaged / "summary.json").write_text("{")
    lacking = make_run("lacking", 1)
    (lacking / "summary.json").write_text("{}")
    finished, problems = sort_out([good, unfinished, tmp_path, damaged, lacking])
    assert finished == [good]
    for problem, words in zip(
        problems, ("unfinished is not finished", "is no run", "cannot be read", "no 'metric'"), strict=True
    ):
        assert words in problem
    for folder in (unfinished, tmp_path, damaged, lacking):
        with pytest.raises(DataError):
            compare_runs([folder])


def test_cells(make_run):
    folders = [make_run("a", 40.0, seed=0), make_run("b", 42.0, seed=1), make_run("c", 1, kind="lstm", memory=None)]
    columns, lines = cells(compare_runs(folders), "validation")
    assert columns[:3] == ["changed", "seeds", "T2V R@1"]
    assert lines[0][:3] == ["model.temporal.kind=mean", "2", f"41.0 ± {statistics.stdev([40, 42]):.1f}"]
    assert lines[1][:3] == ["model.temporal.kind=lstm", "1", "1.0"]
    assert lines[0][-3:] == ["2.00 M (1.50 M)", "0.150", "2.00 GiB"]
    assert lines[1][-1] == "-"
    assert cells(compare_runs(folders), "test")[1] == []


def test_markdown_keeps_its_columns():
    assert markdown(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_the_command(make_run, tmp_path, capsys):
    folders = [make_run("a", 40, seed=0, test=30.0), make_run("b", 42, seed=1, test=31.0)]
    assert run("compare", *folders) == 0
    said = capsys.readouterr().out
    assert said.index("validation") < said.index("41.0 ± 1.4") < said.index("test") < said.index("30.5 ± 0.7")
    assert run("compare", *folders, "--markdown") == 0
    said = capsys.readouterr().out
    assert said.startswith("validation:\n\n| changed | seeds | T2V R@1 |")
    assert "test:" in said
    assert run("compare", *folders, tmp_path / "absent", "--json") == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["rows"][0]["validation"]["T2V R@1"] == {"mean": 41.0, "sd": pytest.approx(2**0.5)}
    assert found["rows"][0]["runs"] == list(map(str, folders))
    assert "absent is no run" in found["left_out"][0]
    assert "left out: " in said.err
    assert run("compare", tmp_path / "absent") == 1
    assert run("compare") == 2


def test_a_heads_defaults_are_not_told_beside_its_kind(make_run):
    heads = {
        "mean": TemporalConfig(),
        "mstdt": TemporalConfig(kind="mstdt", alpha=0.3, scales=(3, 4, 6)),
        "plain": TemporalConfig(kind="mstdt"),
    }
    folders = [make_run(name, 40.0, model={"temporal": head.model_dump(mode="json")}) for name, head in heads.items()]
    told = [line[0] for line in cells(compare_runs(folders), "validation")[1]]
    kinds = [f"model.temporal.kind={kind}" for kind in ("mean", "mstdt", "mstdt")]
    assert told == [kinds[0], f"{kinds[1]}, model.temporal.alpha=0.3", kinds[2]]
    told = [line[0] for line in cells(compare_runs(folders[1:]), "validation")[1]]
    assert told == ["model.temporal.alpha=0.3", "model.temporal.alpha=0.5"]
