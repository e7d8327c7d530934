"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from vtr_runtime.errors import OutputExistsError, StorageError
from vtr_runtime.publish import check_output, link_or_copy, staged_file, staged_folder, storage_errors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_old_one_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    with staged_file(target) as staged:
        staged.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["x.bin"]


def test_a_failed_file_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def write() -> None:
        with staged_file(target) as staged:
            staged.write_bytes(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_folder_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputExistsError, match="--overwrite"), staged_folder(tmp_path / "bundle"):
        pytest.fail("the body must not run")


def test_a_missing_parent_is_refused_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="mkdir -p"):
        check_output(tmp_path / "no" / "bundle")


def test_overwrite_replaces_a_folder_only_when_the_new_one_is_finished(tmp_path: Path) -> None:
    old = tmp_path / "bundle"
    old.mkdir()
    (old / "old.txt").write_text("old")

    def write() -> None:
        with staged_folder(old, overwrite=True) as staged:
            (staged / "new.txt").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert names(old) == ["old.txt"]
    with staged_folder(old, overwrite=True) as staged:
        (staged / "new.txt").write_text("new")
    assert names(old) == ["new.txt"]
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence(tmp_path: Path, code: int) -> None:
    with pytest.raises(StorageError, match=r"no room to write .*free some space"), storage_errors(tmp_path / "x"):
        raise OSError(code, "No space left on device")


def test_a_read_only_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), storage_errors(tmp_path / "x"):
        raise OSError(errno.EROFS, "Read-only file system")


def test_a_file_that_outgrows_its_limit_leaves_the_old_one(tmp_path: Path) -> None:
    """The kernel refuses the write as a full disk does: a limit on file size stands in for a small disk."""
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    code = (
        "import sys; from pathlib import Path; from vtr_runtime.publish import staged_file\n"
        "with staged_file(Path(sys.argv[1])) as staged: staged.write_bytes(bytes(1 << 20))"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert "StorageError: no room to write" in done.stderr
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_second_place_is_a_link_but_for_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("video.onnx", "video.onnx.data"):
        (tmp_path / name).write_bytes(b"1")
        link_or_copy(tmp_path / name, tmp_path / "other" / name)
    links = [(tmp_path / "other" / name).stat().st_nlink for name in ("video.onnx", "video.onnx.data")]
    assert links == [2, 1]

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("os.link", refuse)
    link_or_copy(tmp_path / "video.onnx", tmp_path / "third.onnx")
    assert (tmp_path / "third.onnx").read_bytes() == b"1"
    assert (tmp_path / "third.onnx").stat().st_nlink == 1
