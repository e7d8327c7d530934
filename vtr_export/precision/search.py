"""Which modules must stay in fp32 for a precision's gates: found by embeddings and ranks, named as in PyTorch.

The defaults are tried first. Where they fail, each group of modules (a transformer block, a stage, a head) is lowered
alone, all else in fp32: that shows its own effect, and an overflow cannot hide behind another. The smallest number of
the worst groups that meets the gates is found by bisection, and the same is done once more with the modules inside
them. A graph costs 2 runs where the defaults do, else about 2 + groups + inner modules + 2 log2 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vtr_runtime.errors import GateError
from vtr_runtime.precision import COSINE_LOSS

from ..graph.module_names import module_names, root_of
from .execute import TypedGraph
from .islands import Islands
from .lower import LowPrecision, lower_model
from .ranks import Moved, compare, count_flips
from .types import MOVES

Feed = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[np.float32]]  # embeddings [N, D] by graph


@dataclass(frozen=True)
class Effect:
    """A group of modules, lowered alone."""

    module: str
    error: float  # 1 - the smallest cosine; infinite where an embedding is not finite
    kept: bool  # in fp32, as the search ends


@dataclass
class SearchResult:
    """Islands that meet the gates, and why."""

    islands: Islands
    effects: list[Effect] = field(default_factory=list)  # the worst first; empty where the defaults were enough
    cosines: dict[str, float] = field(default_factory=dict)  # by graph, with these islands
    flips: int = 0  # captions whose best clip is another one; none outside the noise
    runs: int = 0  # of one graph over its calibration inputs

    def table(self) -> str:
        """For people: module, effect, decision."""
        if not self.effects:
            return "the default islands are enough: no module had to be tried"
        lines = [f"{'module':60} {'1 - cosine':>12}  kept in fp32"]
        lines += [f"{e.module:60} {e.error:12.3g}  {'yes' if e.kept else 'no'}" for e in self.effects]
        return "\n".join(lines)


def find_islands(
    graphs: Mapping[str, Path],
    feeds: Mapping[str, Sequence[Feed]],
    *,
    precision: LowPrecision,
    start: Islands | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SearchResult:
    """Search islands for the fp32 graphs `video` and `text` (either or both) with feeds of each.

    Ranks are judged where both are given: captions are ranked against clips. Raises GateError when not even whole
    modules in fp32 meet the gates, which says that the rest of the graph does not bear the precision."""
    search = _Search(graphs, feeds, precision, start or Islands(), say)
    return search.run()


class _Search:
    def __init__(
        self,
        graphs: Mapping[str, Path],
        feeds: Mapping[str, Sequence[Feed]],
        precision: LowPrecision,
        islands: Islands,
        say: Callable[[str], None],
    ) -> None:
        self.graphs, self.feeds, self.precision, self.say = graphs, feeds, precision, say
        self.result = SearchResult(islands)
        self.limit = COSINE_LOSS[precision]
        self.want: Arrays = {name: self._embed(name, ir.load(path)) for name, path in graphs.items()}

    def run(self) -> SearchResult:
        got = {name: self._lowered(name, self.result.islands) for name in self.graphs}
        for name in self.graphs:
            if not self._met(name, got[name]):
                self._search(name, got)
        flips, outside = self._flips(got)
        if outside:
            # The cosines hold and the ranks do not: the worse graph gets islands for half its error.
            worse = max(got, key=lambda name: self._moved(name, got[name]).error)
            self.limit = self._moved(worse, got[worse]).error / 2
            self._search(worse, got)
            flips, outside = self._flips(got)
        if outside:
            raise GateError(
                f"{outside} captions have another best clip in {self.precision} beyond the noise, with every island "
                f"found; export in fp32, or in bf16 if this was fp16"
            )
        self.result.flips = flips
        self.result.cosines = {name: self._moved(name, got[name]).cosine for name in got}
        return self.result

    def _search(self, name: str, got: Arrays) -> None:
        """Add islands until this graph meets the limit, and leave what it then gives in `got`."""
        before = self.result.islands
        groups = groups_of(self.graphs[name])
        kept = self._keep_worst(name, before, [], sorted(groups))
        rules = rules_of(groups)
        chosen = [rules[group] for group in kept]
        inner = [module for group in kept for module in groups[group]]
        if len(inner) > len(kept):
            # Whole groups are known to be enough; what of them matters is asked once more.
            fewer = self._keep_worst(name, before, kept, inner)
            chosen = chosen if fewer == kept else [rules_of(inner)[module] for module in fewer]
        self.result.islands = before.also(chosen)
        got[name] = self._lowered(name, self.result.islands)

    def _keep_worst(self, name: str, before: Islands, enough: list[str], modules: list[str]) -> list[str]:
        """The fewest of the worst modules in fp32 that meet the limit; `enough` where all of them do not."""
        rules = rules_of(modules)
        errors = {module: self._alone(name, before, module, rules, enough) for module in modules}
        order = sorted(modules, key=lambda module: errors[module], reverse=True)
        low, high = 0, len(order)
        if not self._met(name, self._lowered(name, before.also(rules.values()))):
            if enough:
                return enough
            raise GateError(
                f"{self.graphs[name].name} misses the gate for {self.precision} even with {', '.join(order[:3])} and "
                f"all other modules in fp32; export in fp32"
            )
        while high - low > 1:
            middle = (low + high) // 2
            met = self._met(name, self._lowered(name, before.also(rules[module] for module in order[:middle])))
            low, high = (low, middle) if met else (middle, high)
        kept = set(order[:high])
        self.result.effects += [Effect(module, errors[module], module in kept) for module in order]
        self.say(
            f"{self.graphs[name].name}: {len(kept)} of {len(order)} modules in fp32, {self.result.runs} runs so far"
        )
        return order[:high]

    def _alone(self, name: str, before: Islands, module: str, rules: dict[str, str], groups: list[str]) -> float:
        """The error with only this module lowered. Where the modules stand inside of `groups`, all other groups stay in
        fp32 too."""
        others = [rule for other, rule in rules.items() if other != module]
        if groups:
            others += [rule for group, rule in rules_of(groups_of(self.graphs[name])).items() if group not in groups]
        return self._moved(name, self._lowered(name, before.also(others))).error

    def _lowered(self, name: str, islands: Islands) -> NDArray[np.float32]:
        model = ir.load(self.graphs[name])
        lower_model(model, precision=self.precision, islands=islands, root=root_of(self.graphs[name]))
        return self._embed(name, model)

    def _embed(self, name: str, model: ir.Model) -> NDArray[np.float32]:
        self.result.runs += 1
        graph = TypedGraph(model)
        return np.concatenate([graph(feed)["embedding"] for feed in self.feeds[name]])

    def _moved(self, name: str, got: NDArray[np.float32]) -> Moved:
        return compare(self.want[name], got)

    def _met(self, name: str, got: NDArray[np.float32]) -> bool:
        return self._moved(name, got).error <= self.limit

    def _flips(self, got: Arrays) -> tuple[int, int]:
        if not {"text", "video"} <= got.keys():
            return 0, 0
        noise = 2 * max(self._moved(name, got[name]).largest for name in ("text", "video"))
        want = self.want["text"].astype(np.float64) @ self.want["video"].astype(np.float64).T
        return count_flips(want, got["text"].astype(np.float64) @ got["video"].astype(np.float64).T, noise)


def groups_of(path: Path) -> dict[str, list[str]]:
    """The groups of a graph's modules, each with the modules inside it that compute something themselves.

    A group ends with the first number in its name (`...resblocks.3`), or is the module itself (`video.backbone`)."""
    graph = ir.load(path).graph
    names = module_names(graph, root_of(path))
    groups: dict[str, list[str]] = {}
    for node in graph:
        name = names[node]
        inner = groups.setdefault(_group(name), [])
        if node.op_type not in MOVES and name not in inner:
            inner.append(name)
    return {group: inner for group, inner in groups.items() if inner}


def rules_of(modules: Iterable[str]) -> dict[str, str]:
    """Islands for modules of one level. One that holds others of them stands for what it does itself."""
    names = list(modules)
    return {name: f"op:*@{name}" if any(other.startswith(f"{name}.") for other in names) else name for name in names}


def _group(name: str) -> str:
    parts = name.split(".")
    numbered = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[: numbered + 1])
