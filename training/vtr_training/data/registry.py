"""Which reader reads which benchmark."""

from __future__ import annotations

from .benchmarks import activitynet, charades, didemo, lsmdc, msrvtt, msvd, tgif, vatex
from .benchmarks.entry import Reader

READERS: dict[str, Reader] = {
    "msrvtt-9k": msrvtt.read_9k,
    "msrvtt-7k": msrvtt.read_7k,
    "msrvtt-1ka": msrvtt.read_1ka,
    "msrvtt-full": msrvtt.read_full,
    "msvd": msvd.read,
    "tgif": tgif.read,
    "didemo": didemo.read,
    "didemo-tmass": didemo.read_tmass,
    "activitynet": activitynet.read,
    "lsmdc": lsmdc.read,
    "vatex": vatex.read,
    "charades": charades.read,
}
