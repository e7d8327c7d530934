"""The suite as mutants meet it: the same cases, comparators and limits as ever, asked only as far as is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtr_runtime.bundle import Bundle
from vtr_runtime.manifest import Manifest
from vtr_runtime.stages import PLACES, place_in_flow, stage_of

from ..cases import Case, read_cases
from ..corners import BATCHES, Corner, check_corners, corners, expect
from ..hosts.base import Arrays, Host
from ..hosts.torch import TorchHost
from ..properties import check_properties
from ..results import Report, Result
from ..run import answer_case

BATCH = max(BATCHES)


def first_moved(results: Sequence[Result], manifest: Manifest, *, debug_outputs: bool = True) -> Result | None:
    """What a report blames: the failed case of the earliest stage; without debug outputs, of those that remain."""
    hidden = frozenset() if debug_outputs else inner_stages(manifest)
    failed = Report(tuple(result for result in results if stage_of(result.stage).name not in hidden)).failed
    return failed[0] if failed else None


def inner_stages(manifest: Manifest) -> frozenset[str]:
    """The stages that only a bundle exported with --debug-outputs has. A second stage needs the frames' embeddings."""
    return frozenset({"text_embedding", "sampler_step"} | ({"frame_embeddings"} if manifest.rerank is None else set()))


@dataclass(frozen=True)
class Suite:
    """The golden cases of a bundle, and its corners with what PyTorch makes of them, which are asked once."""

    manifest: Manifest
    cases: list[Case]
    places: list[Corner]
    expected: list[Arrays | None]

    @classmethod
    def of(cls, bundle: Bundle, checkpoint: Path) -> Suite:
        places = corners(bundle.manifest)
        expected = expect(TorchHost(checkpoint, bundle), places, BATCH)
        return cls(bundle.manifest, read_cases(bundle), places, expected)

    def run(self, host: Host, known: Sequence[Result] = (), *, whole: bool = False) -> Report:
        """Ask stage by stage, up to the first that has moved with and without debug outputs: those behind it are not
        needed to tell which one is first.

        `known` are results that cannot differ on this host, and are not asked again; `whole`: ask every stage."""
        answered = {result.case for result in known}
        results = [*known]
        of_cases = {place_in_flow(case.stage, case.id) for case in self.cases}
        for place in sorted(of_cases | {PLACES["corners"], PLACES["invariance"]}):
            mine = [c for c in self.cases if place_in_flow(c.stage, c.id) == place and c.id not in answered]
            results += [answer_case(host, case) for case in mine]
            if place == PLACES["corners"]:
                results += check_corners(host, self.places, self.expected, BATCH)
            elif place == PLACES["invariance"]:
                results += check_properties(host, self.manifest, BATCH)
            if not whole and first_moved(results, self.manifest, debug_outputs=False) is not None:
                break
        return Report(tuple(results), precision=host.precision)
