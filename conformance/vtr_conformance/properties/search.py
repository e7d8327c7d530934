"""Look for an input at which a property does not hold, and shrink it to a smallest one: Hypothesis does both."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from vtr_runtime.errors import VtrError

from ..hosts.base import Arrays, Host
from ..judge import judge, raised
from ..results import Result
from ..stages import Gate

STAGE = "invariance"
# A property may take this long on one host; the examples that are left are not tried then. Shrinking counts.
SECONDS = 20.0
# So many are tried, however long they take.
LEAST = 2

Example = TypeVar("Example", bound=Hashable)


class Pair(NamedTuple):
    """Outputs that ought to be the same."""

    want: Arrays
    got: Arrays


@dataclass(frozen=True)
class Property(Generic[Example]):
    """What must hold of a graph at every input. `named` inputs are always tried, simplest first, before those that are
    drawn; `run` asks the host; `words` tell an input to a person."""

    case: str
    named: Sequence[Example]
    drawn: SearchStrategy[Example]
    run: Callable[[Example], Pair]
    words: Callable[[Example], str]
    gate: Gate | None = None  # None: the stage's


def search(host: Host, asked: Property[Example], examples: int, seconds: float = SECONDS) -> Result:
    """Try the named inputs and up to `examples` drawn ones: the smallest counterexample that was found, else the
    largest difference. What the host raises is a failure at once, in its words: an error is not shrunk.

    The same installation draws the same examples: no clock, no chance and no file has a say in them."""
    tries = _Tries(host, asked, time.monotonic() + seconds)
    for example in asked.named:
        tries.add(example)

    @seed(0)
    @settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(asked.drawn)
    def holds(example: Example) -> None:
        if tries.add(example) == "fail":
            raise _CounterexampleError(example)

    failing = (example for example, result in tries.results.items() if result.status == "fail")
    smallest: Hashable | None = next(failing, None)
    try:
        holds()
    except _CounterexampleError as found:
        smallest = found.example
    return tries.outcome(smallest)


class _CounterexampleError(Exception):
    def __init__(self, example: Hashable) -> None:
        super().__init__(example)
        self.example = example


class _Tries(Generic[Example]):
    """What was tried. An input is asked for once: a host that answers otherwise the second time confuses nobody."""

    def __init__(self, host: Host, asked: Property[Example], until: float) -> None:
        self._host, self._asked, self._until = host, asked, until
        self._error: tuple[Example, VtrError] | None = None
        self._late = False
        self.results: dict[Example, Result] = {}

    def add(self, example: Example) -> str:
        """The status at this input; empty where it was not tried: the time is up, or the host has raised."""
        if example not in self.results and not self._ended():
            try:
                pair = self._asked.run(example)
            except VtrError as error:
                self._error = example, error
                return ""
            self.results[example] = judge(self._host, STAGE, self._asked.case, *pair, gate=self._asked.gate)
        return self.results[example].status if example in self.results else ""

    def outcome(self, smallest: Hashable | None) -> Result:
        words = self._asked.words
        for example, result in self.results.items():
            if example == smallest:
                return replace(result, where=f"{words(example)}: {result.where}")
        if self._error is not None:
            example, error = self._error
            result = raised(self._host, STAGE, self._asked.case, error)
            return replace(result, where=f"{words(example)}: {result.where}")
        worst = max(self.results.values(), key=lambda result: result.measured or 0.0)
        tried = f"{len(self.results)} inputs" + (", then time was up" if self._late else "")
        return replace(worst, where=tried)

    def _ended(self) -> bool:
        self._late = self._late or (len(self.results) >= LEAST and time.monotonic() > self._until)
        return self._late or self._error is not None
