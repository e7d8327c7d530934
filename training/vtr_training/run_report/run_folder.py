"""Reads what a finished run left in its folder: recipe.json, log.jsonl, summary.json and, once evaluated, test.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vtr_runtime.errors import DataError

SUMMARY_KEYS = ("metric", "best_step", "steps", "seconds_per_step", "device", "skipped", "parameters", "validation")


@dataclass(frozen=True)
class Run:
    folder: Path
    recipe: dict[str, Any]
    summary: dict[str, Any]
    test: dict[str, Any] | None  # an evaluation on the test split, if one was made

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Evaluations by split: `validation`, and `test` where there is one."""
        return {"validation": self.summary["validation"], **({"test": self.test} if self.test else {})}

    @cached_property
    def log(self) -> tuple[dict[str, Any], ...]:
        """The lines of log.jsonl; of a step that was done twice (a resumed run) the later line."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be torn
        return tuple({(entry["kind"], entry["step"]): entry for entry in entries}.values())


def read_run(folder: Path) -> Run:
    """DataError, one sentence, for a folder that is no run, or an unfinished or damaged one."""
    if not (folder / "recipe.json").is_file():
        raise DataError(f"{folder} is no run: it holds no recipe.json; name a folder made by vtr-train fit")
    if not (folder / "summary.json").is_file():
        raise DataError(f"{folder} is not finished: it holds no summary.json; go on with vtr-train fit --resume")
    test = _read(folder / "test.json") if (folder / "test.json").is_file() else None
    summary = _read(folder / "summary.json")
    if absent := [key for key in SUMMARY_KEYS if key not in summary]:
        raise DataError(f"{folder / 'summary.json'} has no {absent[0]!r}; train again")
    return Run(folder, _read(folder / "recipe.json"), summary, test)


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted keys: {"a": {"b": 1}} -> ("a.b", 1)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}); train or evaluate again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no JSON object; train or evaluate again")
    return content
