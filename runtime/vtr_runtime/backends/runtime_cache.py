"""The kernels that TensorRT for RTX compiled on this GPU, kept in a file beside the engine for the next process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..publish import staged_file


class RuntimeCache:
    """A file of one engine and kind of GPU. The library checks what it reads and takes nothing of another version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._saved = b""

    def attach(self, config: Any) -> None:
        """Read the file, if there is one, into a new cache of an engine's runtime configuration."""
        self._cache = config.create_runtime_cache()
        if self._path.is_file():
            self._saved = self._path.read_bytes()
            self._cache.deserialize(self._saved)  # False for what does not fit: it is compiled anew
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what was compiled since; a folder that cannot be written keeps what it has."""
        found = bytes(self._cache.serialize()) if self._cache is not None else b""
        if found and found != self._saved:
            try:
                with staged_file(self._path) as staged:
                    staged.write_bytes(found)
            except (OSError, StorageError):  # a read-only bundle: the next process compiles again
                return
            self._saved = found
