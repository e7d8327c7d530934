"""The runtime with one mistake."""

from __future__ import annotations

from vtr_runtime.model import Model

from ..cases import Case
from ..hosts.base import Arrays
from ..hosts.runtime import RuntimeHost
from .mutant import HostMutant, applied


class MutantHost(RuntimeHost):
    """Answers as a host that makes the mutant's mistake; the model it runs is right, and may be shared."""

    def __init__(self, model: Model, mutant: HostMutant) -> None:
        super().__init__(model)
        self._mutant = mutant

    def answer(self, case: Case) -> Arrays | str:
        with applied(self._mutant.patches):
            return super().answer(case)

    def run(self, graph: str, feed: Arrays) -> Arrays:
        given = self._mutant.feed(graph, feed)
        return self._mutant.outputs(graph, given, super().run(graph, given))
