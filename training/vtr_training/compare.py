"""`vtr-train compare`: finished runs side by side; those that differ in their seed alone are one row."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path, PurePath
from statistics import fmean, stdev
from typing import Any

from pydantic import BaseModel

from vtr_export.model.config import AlignmentConfig, RerankConfig, TemporalConfig
from vtr_runtime.errors import DataError, VtrError

from .data.spec import parse_spec
from .run_report.run_folder import Run, flat, read_run

METRICS: dict[str, tuple[str, ...]] = {  # column -> where it stands in an evaluation
    "T2V R@1": ("t2v", "R@1"),
    "T2V R@5": ("t2v", "R@5"),
    "T2V R@10": ("t2v", "R@10"),
    "T2V MdR": ("t2v", "MdR"),
    "T2V MnR": ("t2v", "MnR"),
    "V2T R@1": ("v2t", "R@1"),
    "Rsum": ("Rsum",),
    "group R@1": ("within_groups_r1", "all", "t2v"),
}
SHARES = ("group R@1",)  # stored as shares of 1, shown in percent like the rest
WITHOUT_EFFECT = ("seed", "data.cache")

HEADS: dict[str, type[BaseModel]] = {
    "model.temporal": TemporalConfig,
    "model.alignment": AlignmentConfig,
    "model.rerank": RerankConfig,
}

Key = dict[str, Hashable]  # dotted key -> value


@dataclass(frozen=True)
class Spread:
    mean: float
    sd: float | None  # of the sample (n - 1); None for one run

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.sd is None else f" ± {self.sd:.1f}")


@dataclass(frozen=True)
class Row:
    """The runs of one recipe."""

    changed: dict[str, Any]  # the keys in which the groups differ, with this group's values
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    validation: dict[str, Spread]  # by the names of METRICS; recalls in percent
    test: dict[str, Spread] | None  # None unless every run of the group was evaluated on test
    parameters: int
    trained: int
    seconds_per_step: float  # mean
    peak_memory_bytes: int | None  # largest

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sort_out(folders: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The folders that hold finished runs, and one sentence for each other."""
    finished, problems = [], []
    for folder in folders:
        try:
            read_run(folder)
        except VtrError as error:
            problems.append(str(error))
        else:
            finished.append(folder)
    return finished, problems


def compare_runs(folders: Iterable[Path]) -> list[Row]:
    """One row for each recipe, in the order of the folders.

    Recipes are the same if they agree in all but the seed, the frame cache and the folders of files. DataError for a
    folder that is no finished run, or two runs of one recipe and one seed, whose spread would mean nothing."""
    groups: list[tuple[Key, list[Run]]] = []
    for run in map(read_run, folders):
        key = _key(run)
        members = next((members for other, members in groups if other == key), None)
        if members is None:
            groups.append((key, [run]))
        else:
            members.append(run)
    names = dict.fromkeys(name for key, _ in groups for name in key)
    changed = [name for name in names if len({key.get(name) for key, _ in groups}) > 1]
    return [_row({name: key.get(name) for name in changed}, runs) for key, runs in groups]


def cells(rows: Sequence[Row], split: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table for `validation` or `test`; rows without figures on that split are left out."""
    shown = [(row, found) for row in rows if (found := row.validation if split == "validation" else row.test)]
    metrics = [name for name in METRICS if any(name in found for _, found in shown)]
    columns = ["changed", "seeds", *metrics, "parameters (trained)", "s/step", "memory"]
    lines = []
    for row, found in shown:
        figures = [str(found[name]) if name in found else "-" for name in metrics]
        size = f"{row.parameters / 1e6:.2f} M ({row.trained / 1e6:.2f} M)"
        memory = "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.2f} GiB"
        lines.append([_changes(row), str(len(row.seeds)), *figures, size, f"{row.seconds_per_step:.3f}", memory])
    return columns, lines


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown."""

    def line(items: Iterable[str]) -> str:
        return f"| {' | '.join(item.replace('|', chr(92) + '|') for item in items)} |"

    return "\n".join([line(columns), line("---" for _ in columns), *map(line, lines)])


def _key(run: Run) -> Key:
    """What makes runs the same: their settings, and how large what they were validated on is. Where a file lies is no
    setting, but its name and presence are."""
    settings: Key = {name: _comparable(value) for name, value in flat(run.recipe) if name not in WITHOUT_EFFECT}
    settings["data.spec"] = parse_spec(str(settings["data.spec"])).title
    if settings.get("model.start_from") is not None:
        settings["model.start_from"] = PurePath(str(settings["model.start_from"])).name
    found = run.summary["validation"]["t2v"]
    return {**settings, "validation captions": found["queries"], "validation clips": found["gallery"]}


def _row(changed: Key, runs: Sequence[Run]) -> Row:
    for one, other in combinations(runs, 2):
        if one.recipe["seed"] == other.recipe["seed"]:
            raise DataError(
                f"{one.folder} and {other.folder} are of one recipe and seed {one.recipe['seed']}; name one of them"
            )
    tests = [run.test for run in runs if run.test is not None]
    memory = [run.summary["peak_memory_bytes"] for run in runs if run.summary.get("peak_memory_bytes") is not None]
    parameters = runs[0].summary["parameters"]
    return Row(
        changed=dict(changed),
        runs=tuple(str(run.folder) for run in runs),
        seeds=tuple(run.recipe["seed"] for run in runs),
        validation=_spreads([run.summary["validation"] for run in runs]),
        test=_spreads(tests) if len(tests) == len(runs) else None,
        parameters=parameters["total"],
        trained=parameters["trained"],
        seconds_per_step=fmean(run.summary["seconds_per_step"] for run in runs),
        peak_memory_bytes=max(memory, default=None),
    )


def _spreads(evaluations: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    """Of the metrics that every evaluation has."""
    found = {name: [_value(evaluation, name) for evaluation in evaluations] for name in METRICS}
    complete = {name: [v for v in values if v is not None] for name, values in found.items() if None not in values}
    return {name: Spread(fmean(v), stdev(v) if len(v) > 1 else None) for name, v in complete.items()}


def _value(evaluation: Any, name: str) -> float | None:
    for key in METRICS[name]:
        if key not in evaluation:
            return None
        evaluation = evaluation[key]
    return float(evaluation) * (100 if name in SHARES else 1)


def _changes(row: Row) -> str:
    shown = (f"{key}={'none' if value is None else value}" for key, value in row.changed.items() if _tells(row, key))
    return ", ".join(shown) or ", ".join(PurePath(run).name for run in row.runs)


def _tells(row: Row, key: str) -> bool:
    """Not told: beside a head's kind what it leaves at its default, and what another kind has and this one has not."""
    table, _, name = key.rpartition(".")
    if name == "kind" or f"{table}.kind" not in row.changed or table not in HEADS:
        return True
    value, default = row.changed[key], HEADS[table].model_fields[name].default
    return value is not None and value != _comparable(list(default) if isinstance(default, tuple) else default)


def _comparable(value: Any) -> Hashable:
    return json.dumps(value) if isinstance(value, list) else value
