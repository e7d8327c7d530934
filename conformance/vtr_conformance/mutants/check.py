"""Run the suite on a mutant and say whether it was caught, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from vtr_runtime.errors import GateError
from vtr_runtime.stages import BEFORE_THE_GRAPHS, stage_of

from ..failures import sentence
from ..hosts import RuntimeHost
from ..hosts.runtime import open_runtime
from ..hosts.typed_graph import TypedGraphHost
from ..results import Report, Result, strict
from .exports import Sound, export_in_fp16, export_mutant, export_sound
from .host import MutantHost
from .mutant import ExportMutant, HostMutant, Mutant
from .suite import Suite, first_moved

Status = Literal["caught", "wrong stage", "missed", "not applicable"]


@dataclass(frozen=True)
class Outcome:
    """What the suite found of a mutant. `found` is the stage that it blames with debug outputs, `plain` without; the
    figures are those of the first case that failed. `why` says why a mutant is not applicable, or was not run."""

    name: str
    kind: str
    mistake: str
    expected: tuple[str, ...]
    status: Status
    found: str = ""
    plain: str = ""
    case: str = ""
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    where: str = ""
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return strict(asdict(self))


class MutantCheck:
    """Exports a checkpoint once, proves that export sound, and puts mutants of it to the suite."""

    def __init__(self, checkpoint: Path, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        """`folder` exists and is empty; what is exported lies in it.

        GateError where the unmutated export, on its host, does not meet every gate: then nothing can be shown."""
        self._folder = folder
        self.sound: Sound = export_sound(checkpoint, folder / "sound", say)
        self.suite = Suite.of(self.sound.bundle, checkpoint)
        self._host: RuntimeHost = open_runtime(self.sound.bundle, "onnx-cpu")
        self.report = _must_pass(self.suite.run(self._host, whole=True), "the unmutated export")
        self._before = [result for result in self.report.results if result.stage in BEFORE_THE_GRAPHS]

    def check_fp16(self) -> Report:
        """The suite on the unmutated export in fp16, on the typed graph: what an fp16 mutant is held against."""
        with TemporaryDirectory(dir=self._folder) as scratch:
            host = TypedGraphHost(export_in_fp16(self.sound, Path(scratch)))
            return _must_pass(self.suite.run(host, whole=True), "the unmutated export in fp16")

    def check_all(self, mutants: Sequence[Mutant]) -> Iterator[Outcome]:
        for mutant in mutants:
            yield self.check(mutant)

    def check(self, mutant: Mutant) -> Outcome:
        """Put one mutant to the suite."""
        described = (mutant.name, mutant.kind, mutant.mistake, mutant.expected)
        if reason := mutant.makes_no_difference(self.sound.config):
            return Outcome(*described, "not applicable", why=reason)
        try:
            results = self._run(mutant).results
        except Exception as error:  # PyTorch's and onnx's exporters raise anything; the other mutants go on
            return Outcome(*described, "missed", why=f"it could not be run: {type(error).__name__}: {error}")
        manifest = self.sound.manifest
        first, plain = first_moved(results, manifest), first_moved(results, manifest, debug_outputs=False)
        if first is None:
            return Outcome(*described, "missed", why="every gate was met")
        right = first.stage in mutant.expected or stage_of(first.stage).name in mutant.expected
        return Outcome(
            *described,
            "caught" if right else "wrong stage",
            found=first.stage,
            plain=plain.stage if plain is not None else "",
            case=first.case,
            measured=first.measured,
            limit=first.limit,
            unit=first.unit,
            where=first.where,
        )

    def _run(self, mutant: Mutant) -> Report:
        if isinstance(mutant, HostMutant):
            return self.suite.run(MutantHost(self._host.model, mutant))
        assert isinstance(mutant, ExportMutant)
        with TemporaryDirectory(dir=self._folder) as scratch:
            bundle = export_mutant(self.sound, mutant, Path(scratch))
            host = TypedGraphHost(bundle) if mutant.fp16_without else open_runtime(bundle, "onnx-cpu")
            # No graph takes part in what comes before the graphs.
            return self.suite.run(host, self._before)


def _must_pass(report: Report, what: str) -> Report:
    if not report.passed:
        raise GateError(f"{what} does not pass, so no mutant can show anything: {_first_words(report.failed, report)}")
    return report


def _first_words(failed: Sequence[Result], report: Report) -> str:
    return sentence(failed[0]) if failed else report.verdict
