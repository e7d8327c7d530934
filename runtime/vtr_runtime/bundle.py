"""A bundle on disk, verified before anything in it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import BundleError
from .manifest import Manifest, file_sha256, parse_manifest

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden/golden.json"
# Nothing that a manifest rightly holds comes near this; a larger file is refused before it is read.
MAX_MANIFEST_BYTES = 16 << 20
AGAIN = "copy the bundle again, or export it anew"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: `file(name)` gives the path of a file that the manifest lists."""

    folder: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder} holds no {name}; {AGAIN}")
        return self.folder / name


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and compare every core file with its size and sha256."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; give the folder that vtr-export wrote with -o")
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} is not a bundle: it holds no {MANIFEST}; give the folder that vtr-export wrote")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes, which no manifest is; {AGAIN}")
    manifest = parse_manifest(path.read_text(encoding="utf-8", errors="replace"), origin=str(folder))
    for name, entry in manifest.files.items():
        _check_inside(folder, name)
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{folder}: {name} is missing; {AGAIN}")
        if file.stat().st_size != entry.size:
            raise BundleError(f"{folder}: {name} has {file.stat().st_size} bytes, not {entry.size}; {AGAIN}")
        if file_sha256(file) != entry.sha256:
            raise BundleError(f"{folder}: {name} is damaged, its sha256 is not the manifest's; {AGAIN}")
    _check_graph_files(manifest, folder)
    return Bundle(folder, manifest)


def _check_inside(folder: Path, name: str) -> None:
    pure = PurePosixPath(name)
    unsafe = not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name
    if unsafe or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the manifest lists {name!r}, which leads outside the bundle; do not use it")


def _check_graph_files(manifest: Manifest, folder: Path) -> None:
    graphs = manifest.graphs.named().values()
    needed = [graph.file for graph in graphs] + [graph.external_data for graph in graphs if graph.external_data]
    for name in [*needed, TOKENIZER, GOLDEN]:
        if name not in manifest.files:
            raise BundleError(f"{folder}: the manifest gives no hash for {name}; {AGAIN}")
