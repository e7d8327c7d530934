"""A bundle's golden vectors made anew from its checkpoint, and a bundle that has them."""

from __future__ import annotations

import shutil
from pathlib import Path

from vtr_export.bundle_writer import renew_verdict, update_manifest
from vtr_export.golden import write_golden
from vtr_runtime.bundle import GOLDEN, MANIFEST, TOKENIZER, Bundle
from vtr_runtime.engines.record import ENGINE_JSON, ENGINES, core_hash, read_record, write_record
from vtr_runtime.errors import BackendError
from vtr_runtime.manifest import Manifest
from vtr_runtime.publish import link_or_copy, staged_folder
from vtr_runtime.text import Tokenizer

from .hosts.torch import load_own_checkpoint
from .report.write import JUNIT, LINES, PAGE

GOLDEN_FOLDER = Path(GOLDEN).parent.as_posix()
# Of other golden vectors; the rest of reports/ (islands, scripts) tells of the graphs, which stay.
OF_THE_RUN = (LINES, JUNIT, PAGE)
NOT_JUDGED = "**not run on these golden vectors yet**", "vtr-conformance run . --report reports"


def make_golden(bundle: Bundle, checkpoint: Path, folder: Path) -> list[str]:
    """Write the golden vectors of a bundle into `folder`, as an export does now; the names of the files.

    CheckpointError for another checkpoint than the bundle's."""
    own = load_own_checkpoint(checkpoint, bundle)
    manifest = bundle.manifest
    tokenizer = Tokenizer.from_file(bundle.file(TOKENIZER), manifest.text)
    rerank = manifest.graphs.rerank is not None
    return write_golden(own.model, tokenizer, folder, weights_sha256=own.weights_sha256, rerank=rerank)


def write_bundle(bundle: Bundle, golden: Path, names: list[str], output: Path) -> Manifest:
    """Publish `output`, the bundle with the golden vectors that lie in `golden` under `names`.

    Graphs, tokenizer and engines are hard links where the file system has them: the core of a bundle is never written
    again. An engine belongs to the core that it was built from; its graphs did not change, so it follows to the new
    one. The bundle given stays as it was. OutputExistsError where `output` is there already."""
    old = bundle.manifest
    with staged_folder(output) as folder:
        for path in sorted(bundle.folder.rglob("*")):
            name = path.relative_to(bundle.folder)
            if not path.is_file() or not _stays(name):
                continue
            if name.as_posix() in old.files or (name.parts[0] == ENGINES and name.name != ENGINE_JSON):
                link_or_copy(path, folder / name)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, folder / name)
        shutil.copytree(golden, folder / GOLDEN_FOLDER)
        before = {file for file in old.files if file.startswith(f"{GOLDEN_FOLDER}/")}
        manifest = update_manifest(folder, old, before | {f"{GOLDEN_FOLDER}/{made}" for made in names})
        _move_engines(folder, old, manifest)
        renew_verdict(folder, *NOT_JUDGED)
    return manifest


def _stays(name: Path) -> bool:
    of_the_run = name.parts[0] == "reports" and len(name.parts) == 2 and name.name in OF_THE_RUN
    return name.parts[0] != GOLDEN_FOLDER and name.as_posix() != MANIFEST and not of_the_run


def _move_engines(folder: Path, old: Manifest, new: Manifest) -> None:
    for path in sorted((folder / ENGINES).glob(f"*/{ENGINE_JSON}")):
        try:
            record = read_record(path.parent)
        except BackendError:
            continue  # damaged or newer: it says so itself when it is asked for
        if record.core == core_hash(old):
            write_record(path.parent, record.model_copy(update={"core": core_hash(new)}))
