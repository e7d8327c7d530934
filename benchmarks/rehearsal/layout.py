"""Generated clips laid out as MSR-VTT: its real ids and lists, captions in its JSON layout."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from vtr_runtime.errors import UsageError
from vtr_training.data.clip import Clip
from vtr_training.data.source import DataSource, read_clips
from vtr_training.demo.plan import DemoSize
from vtr_training.demo.write import write_demo_data

TRAIN_LIST, TEST_LIST = "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"
CAPTIONS = 20  # of a training video
HELD_OUT = 500
SPLITS = {"train": 9_000 - HELD_OUT, "val": HELD_OUT, "test": 1_000}


def lay_out(annotations: Path, folder: Path, counts: dict[str, int]) -> str:
    """Fill `folder`; returns its SPEC. `counts`: videos of each split that there are; all are annotated.

    UsageError where the lists are not among the annotations."""
    folder.mkdir(parents=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        lists = _msrvtt_folder(annotations, Path(scratch))
        for name in (TRAIN_LIST, TEST_LIST):
            shutil.copy(lists / name, folder)
        total = -(-sum(counts.values()) // 4) * 4
        size = DemoSize(train_clips=total, val_groups=0, test_groups=0, test_plain=0)
        write_demo_data(Path(scratch) / "demo", size=size, seed=0)
        made = read_clips(Path(scratch) / "demo", "train")
        train = [row["video_id"] for row in _rows(folder / TRAIN_LIST)]
        _write_captions(folder, train, {name: made[row % total] for row, name in enumerate(train)})
        spec = f"msrvtt-9k:{folder}?held_out={HELD_OUT}" + ("" if counts == SPLITS else "&subset=yes")
        ids = {name: [clip.id for clip in DataSource(spec).split(name).clips] for name in counts}
        chosen = [video for name, count in counts.items() for video in ids[name][:count]]
        shown = dict(zip(chosen, made, strict=False))
        _write_captions(folder, train, {**{name: made[row % total] for row, name in enumerate(train)}, **shown})
        _write_test(folder / TEST_LIST, shown)
        (folder / "videos" / "all").mkdir(parents=True)
        for video, clip in shown.items():
            shutil.move(clip.video, folder / "videos" / "all" / f"{video}.mp4")
    return spec


def _msrvtt_folder(annotations: Path, scratch: Path) -> Path:
    root = annotations
    if annotations.is_file():
        with tarfile.open(annotations) as archive:
            wanted = [member for member in archive if Path(member.name).name in (TRAIN_LIST, TEST_LIST)]
            archive.extractall(scratch / "lists", wanted, filter="data")
        root = scratch / "lists"
    found = [path.parent for path in root.rglob(TRAIN_LIST) if (path.parent / TEST_LIST).is_file()]
    if not found:
        raise UsageError(
            f"{annotations} holds no {TRAIN_LIST} beside {TEST_LIST}; name the folder or archive with both"
        )
    return found[0]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_captions(folder: Path, train: Sequence[str], shown: dict[str, Clip]) -> None:
    """MSRVTT_data.json, by the layout of the original."""
    videos = [
        {
            "category": 0,
            "url": f"https://www.youtube.com/watch?v={video}",
            "video_id": video,
            "start time": 10.0,
            "end time": 22.0,
            "split": "train",
            "id": number,
        }
        for number, video in enumerate(train)
    ]
    sentences = [
        {"caption": caption, "video_id": video, "sen_id": number * CAPTIONS + place}
        for number, video in enumerate(train)
        for place, caption in enumerate(islice(cycle(shown[video].captions), CAPTIONS))
    ]
    info = {"year": "2016", "version": "1.0", "description": "generated", "contributor": "", "data_created": ""}
    content = {"info": info, "videos": videos, "sentences": sentences}
    (folder / "MSRVTT_data.json").write_text(json.dumps(content), encoding="utf-8")


def _write_test(path: Path, shown: dict[str, Clip]) -> None:
    """Keys and ids as they are; the sentences of videos that there are say what the generated clip shows."""
    rows = _rows(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            clip = shown.get(row["video_id"])
            writer.writerow({**row, "sentence": clip.captions[0] if clip else row["sentence"]})
