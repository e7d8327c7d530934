"""Outputs appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputExistsError, StorageError


def check_output(path: Path, *, overwrite: bool = False) -> None:
    """Refuse an output that is there already, before any work is done for it."""
    if not path.parent.is_dir():
        raise OutputExistsError(f"{path.parent} is not a folder; make it first: mkdir -p {path.parent}")
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another -o, or replace it with --overwrite")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a read-only place into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no room to write {path} ({error.strerror}); free some space and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StorageError(f"{path} cannot be written ({error.strerror}); choose another -o") from error
        raise


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; on a clean exit it is flushed to disk and takes the place of `path` in one step."""
    with storage_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        staged = Path(name)
        try:
            yield staged
            with staged.open("rb") as written:
                os.fsync(written.fileno())
            staged.chmod(0o666 & ~umask())
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on a clean exit it becomes `path`. What stood there stays until then."""
    check_output(path, overwrite=overwrite)
    with storage_errors(path):
        staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            yield staged
            staged.chmod(0o777 & ~umask())
            _take_place(staged, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _take_place(staged: Path, path: Path) -> None:
    if not os.path.lexists(path):
        staged.rename(path)
        return
    # rename() does not replace a folder that holds something: the old one steps aside, and comes back on failure.
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    path.rename(old / path.name)
    try:
        staged.rename(path)
    except OSError:
        (old / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is never written again a second place; folders on the way are made.

    Weights beside a graph (`.data`) are copied: onnx refuses to load those that have a second hard link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".data":
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy2(source, target)


def umask() -> int:
    """The bits that a new file goes without, as the user set them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
