"""The benchmarks as the field counts them: one table. `vtr-train check` and every reader hold the files to it.

`videos` and `captions` are None where nobody documents the number. A caption is one query: in paragraph protocols all
sentences of a video are one. Splits that a protocol does not name it does not have; docs/data-sets.md says more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    videos: int | None
    captions: int | None


@dataclass(frozen=True)
class Protocol:
    """`files`: what must lie below the folder; `source`: who publishes the lists and counts."""

    title: str
    splits: Mapping[str, Count]
    files: str
    source: str


_1KA = Count(1_000, 1_000)
_MSRVTT_FILES = "MSRVTT_data.json (or train_val_videodatainfo.json and test_videodatainfo.json)"

PROTOCOLS: dict[str, Protocol] = {
    "msrvtt-9k": Protocol(
        "MSR-VTT, trained on 9K, tested on 1k-A (JSFusion)",
        {"train": Count(9_000, 180_000), "test": _1KA},
        f"{_MSRVTT_FILES}, MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv",
        "lists of CLIP4Clip and X-Pool",
    ),
    "msrvtt-7k": Protocol(
        "MSR-VTT, trained on 7K, tested on 1k-A (JSFusion)",
        {"train": Count(7_010, 140_200), "test": _1KA},
        f"{_MSRVTT_FILES}, MSRVTT_train.7k.csv, MSRVTT_JSFUSION_test.csv",
        "lists of CLIP4Clip and X-Pool",
    ),
    "msrvtt-1ka": Protocol(
        "MSR-VTT 1k-A (JSFusion), test only",
        {"test": _1KA},
        "MSRVTT_JSFUSION_test.csv",
        "list of JSFusion, as in CLIP4Clip and X-Pool",
    ),
    "msrvtt-full": Protocol(
        "MSR-VTT, its own splits, every caption a query",
        {"train": Count(6_513, 130_260), "val": Count(497, 9_940), "test": Count(2_990, 59_800)},
        f"{_MSRVTT_FILES}; MSRVTT_{{train,val,test}}.full.csv where its own field `split` is not meant",
        "the data set; lists of CLIP2Video",
    ),
    "msvd": Protocol(
        "MSVD, every caption a query",
        {"train": Count(1_200, 48_774), "val": Count(100, 4_290), "test": Count(670, 27_763)},
        "{train,val,test}_list.txt, and raw-captions.pkl or captions_msvd.json",
        "lists of CLIP4Clip and X-Pool",
    ),
    "tgif": Protocol(
        "TGIF, its own splits",
        {"train": Count(80_000, None), "val": Count(10_708, None), "test": Count(11_360, 34_101)},
        "tgif-v1.0.tsv, {train,val,test}.txt",
        "the data set's page; its 125,782 captions are not split there as in the file",
    ),
    "didemo": Protocol(
        "DiDeMo, all descriptions of a video as one paragraph, videos up to 31 s",
        {"train": Count(8_392, 8_392), "val": Count(1_065, 1_065), "test": Count(1_004, 1_004)},
        "{train,val,test}_data.json, {train,val,test}_list.txt",
        "descriptions of LocalizingMoments; lists of Collaborative Experts and CLIP4Clip",
    ),
    "didemo-tmass": Protocol(
        "DiDeMo as T-MASS (and DITS) read it, the same paragraphs without 30 training videos",
        {"train": Count(8_362, 8_362), "val": Count(1_062, 1_062), "test": Count(1_004, 1_004)},
        "didemo_{train,val,test}_label.csv",
        "T-MASS",
    ),
    "activitynet": Protocol(
        "ActivityNet Captions, all sentences of a video as one paragraph, tested on val_1",
        {"train": Count(10_009, 10_009), "test": Count(4_917, 4_917)},
        "train.json, val_1.json",
        "the data set; protocol of CLIP4Clip",
    ),
    "lsmdc": Protocol(
        "LSMDC, tested on the 1,000 public clips of the 2016 challenge",
        {"train": Count(None, 101_079), "val": Count(7_408, 7_408), "test": Count(1_000, 1_000)},
        "LSMDC16_annos_training.csv, LSMDC16_annos_val.csv, LSMDC16_challenge_1000_publictect.csv",
        "LSMDC 2016; protocol of CLIP4Clip",
    ),
    "vatex": Protocol(
        "VATEX in English, ten captions a video, every one a query",
        {"train": Count(25_991, 259_910), "val": Count(1_500, 15_000), "test": Count(1_500, 15_000)},
        "{train,val,test}_list.txt, and vatex_data.json or vatex_training_v1.0.json and vatex_validation_v1.0.json",
        "lists of CLIP2Video, split of HGR",
    ),
    "charades": Protocol(
        "Charades, the script of a video as its one caption",
        {"train": Count(7_985, 7_985), "test": Count(1_863, 1_863)},
        "Charades_v1_{train,test}.csv",
        "the data set; protocol of ECLIPSE",
    ),
}
