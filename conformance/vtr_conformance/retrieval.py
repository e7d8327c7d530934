"""A whole split, embedded by PyTorch and by each host: are the same videos found, and the same captions?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import BackendError, VtrError
from vtr_runtime.manifest import Precision
from vtr_runtime.stages import RANKING_TIE, Gate, stage_of

from .hosts.base import Host
from .judge import judge, not_run, raised
from .rankings import Compared, Side, compare_sides, summarise
from .results import Direction, Result, Retrieval
from .split import Embedded, EmbeddedSplit, SplitClips, embed_split

# A ranking says something about an export only where the model itself retrieves.
MEANINGFUL_TIMES_CHANCE = 5
# Scores that are kept for a picture of the reference against the host.
PAIRS = 2000
# So many deviations the errors of two scores may lie apart before a flip is more than noise.
NOISE_DEVIATIONS = 6


def compare_rankings(
    reference: Host, hosts: Sequence[Host], bundle: Bundle, chosen: SplitClips, batch: int
) -> tuple[list[Result], list[Retrieval], tuple[str, ...]]:
    """Embed a split with the reference and with each host; embeddings and every query's ranking must agree.

    The third is a sentence for each clip that cannot be read: it is left out."""
    case = f"{chosen.data}:{chosen.split}"
    lacking = {id(host): host.lacks("video") or host.lacks("text") for host in hosts}
    results = [not_run(host, "retrieval", case, why) for host in hosts if (why := lacking[id(host)]) is not None]
    asked = [host for host in hosts if lacking[id(host)] is None]
    if not asked:
        return results, [], ()
    split = embed_split(reference, asked, bundle, chosen.clips, batch)
    summaries = []
    for host, got in zip(asked, split.hosts, strict=True):
        found, summary = compare_split(host, chosen, split, got)
        results += found
        summaries += [summary] if summary is not None else []
    return results, summaries, split.unreadable


def compare_split(
    host: Host, chosen: SplitClips, split: EmbeddedSplit, got: Embedded | VtrError
) -> tuple[list[Result], Retrieval | None]:
    """What one host came to; no summary where it has no embeddings that could be ranked."""
    case = f"{chosen.data}:{chosen.split}"
    if isinstance(got, VtrError):
        return [raised(host, "retrieval", case, got)], None
    want = split.reference
    labels = {"clip": split.names, "caption": split.captions}
    results = [
        judge(host, "video_embedding", case, {"embedding": want.video}, {"embedding": got.video}, labels=labels),
        judge(host, "aligned", case, {"embedding": want.text}, {"embedding": got.text}, labels=labels),
    ]
    both = (("video_embedding", want.video, got.video), ("aligned", want.text, got.text))
    for stage, ours, theirs in both:
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            trouble = BackendError(f"its embeddings cannot be ranked: see {stage}")
            return [*results, raised(host, "retrieval", case, trouble)], None
    compared = _both_ways(split, got)
    summary = _summary(host, chosen, split, got, compared)
    return [*results, *_judge_rankings(host, case, split, compared, summary)], summary


def noise_of(want: Embedded, got: Embedded, compared: Sequence[Compared], precision: Precision) -> float:
    """The margin of two scores that errors of this size can swap: twice the largest error of any number in any
    embedding, or NOISE_DEVIATIONS times the deviation of a difference of scores that half the queries exceed, whichever
    is more; RANKING_TIE at least, and at most what the ranking may move in this precision.

    Errors that are independent in every number are covered by the first. Rounding within a tower is not: it moves
    embeddings along the few directions in which they differ, so scores are off by more than their numbers tell (the
    small model in bf16: 2.5 times). What lies beyond both is a clip or a caption that is worse off than the others. The
    bound keeps a host that is wrong altogether from excusing its flips by the size of its errors."""
    pairs = ((want.text, got.text), (want.video, got.video))
    largest = max(float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) for a, b in pairs)
    gate = stage_of("ranking").gate(precision)
    most = gate.limit if gate.comparator == "ranking" else np.inf  # int8 has no limit there
    spread = max(float(np.median(found.spread)) for found in compared)
    return float(np.clip(max(2 * largest, NOISE_DEVIATIONS * spread), RANKING_TIE, most))


def _sides(of: Embedded) -> tuple[Side, Side]:
    """Text to video, and video to text."""
    return Side(of.text, of.video), Side(of.video, of.text)


def _both_ways(split: EmbeddedSplit, got: Embedded) -> tuple[Compared, Compared]:
    clips = np.arange(len(split.names))

    def own_clip(rows: slice) -> NDArray[np.bool_]:
        return np.asarray(split.owners[rows, None] == clips)

    def own_captions(rows: slice) -> NDArray[np.bool_]:
        return np.asarray(clips[rows, None] == split.owners)

    (want_t2v, want_v2t), (got_t2v, got_v2t) = _sides(split.reference), _sides(got)
    return compare_sides(want_t2v, got_t2v, own_clip), compare_sides(want_v2t, got_v2t, own_captions)


def _summary(
    host: Host, chosen: SplitClips, split: EmbeddedSplit, got: Embedded, compared: tuple[Compared, Compared]
) -> Retrieval:
    noise = noise_of(split.reference, got, compared, host.precision)
    named = (split.captions, split.names), (split.names, split.captions)
    t2v, v2t = (
        summarise(found, want, now, noise, *names)
        for found, want, now, names in zip(compared, _sides(split.reference), _sides(got), named, strict=True)
    )
    return Retrieval(
        host=host.name,
        backend=host.backend,
        precision=host.precision,
        data=chosen.data,
        split=chosen.split,
        videos=len(split.names),
        texts=len(split.captions),
        unreadable=len(split.unreadable),
        noise=noise,
        meaningful=t2v.reference["R@1"] >= MEANINGFUL_TIMES_CHANCE * 100 / len(split.names),
        rsum=_rsum(t2v.figures, v2t.figures),
        reference_rsum=_rsum(t2v.reference, v2t.reference),
        t2v=t2v,
        v2t=v2t,
        pairs=sample_pairs(split, got),
    )


def sample_pairs(split: EmbeddedSplit, got: Embedded, most: int = PAIRS) -> tuple[tuple[float, float], ...]:
    """Scores (reference, host) of every pair of a caption and a clip; of more than `most`, half captions with their own
    clips, half with any. The same split gives the same pairs."""
    generator = np.random.default_rng(0)
    captions, clips = len(split.captions), len(split.names)
    if captions * clips <= most:
        texts, videos = (places.ravel() for places in np.indices((captions, clips)))
    else:
        own = generator.permutation(captions)[: most // 2]
        texts = np.concatenate([own, generator.integers(0, captions, most - len(own))])
        videos = np.concatenate([split.owners[own], generator.integers(0, clips, most - len(own))])
    wanted, now = (np.einsum("nd,nd->n", side.text[texts], side.video[videos]) for side in (split.reference, got))
    return tuple((round(float(a), 9), round(float(b), 9)) for a, b in zip(wanted, now, strict=True))


def _judge_rankings(
    host: Host, case: str, split: EmbeddedSplit, compared: tuple[Compared, Compared], summary: Retrieval
) -> Iterator[Result]:
    gate = stage_of("ranking").gate(host.precision)
    if gate.comparator == "ranking":  # int8's says only that scores are finite, which they are
        swaps = compared[0].swap
        measured = Gate("max_abs", gate.limit, gate.unit)
        yield judge(
            host,
            "ranking",
            case,
            {"scores": np.zeros_like(swaps)},
            {"scores": swaps},
            gate=measured,
            labels={"caption": split.captions},
        )
    if host.precision == "int8":
        yield _judge_loss(host, case, summary)
        return
    ways = (("text to video", split.captions), ("video to text", split.names))
    for (way, names), found in zip(ways, compared, strict=True):
        outside = {"first item": found.flip > summary.noise, "first ten": found.top > summary.noise}
        none = {name: np.zeros_like(rows) for name, rows in outside.items()}
        yield judge(host, "retrieval", f"{case}, {way}", none, outside, labels={"query": names})


def _judge_loss(host: Host, case: str, summary: Retrieval) -> Result:
    """Text to video: what a search does."""
    found: Direction = summary.t2v
    if summary.meaningful:
        recalls = ({"R@1": np.array(figures["R@1"])} for figures in (found.reference, found.figures))
        return judge(host, "retrieval", case, *recalls)
    chance = 100 / summary.videos
    why = f"the model itself has R@1 {found.reference['R@1']:.1f} where chance has {chance:.1f}"
    return not_run(host, "retrieval", case, f"{why}: give a split on which it retrieves")


def _rsum(*ways: dict[str, float]) -> float:
    return sum(value for figures in ways for name, value in figures.items() if name.startswith("R@"))
