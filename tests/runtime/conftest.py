"""What the tests of the service share: an index as it is met in life, with names and files that make trouble."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

if TYPE_CHECKING:
    from vtr_runtime.model import Model

CPP_OUT = Path(__file__).parents[2] / "out" / "cpp"
HOSTILE = "<img src=x onerror=document.title='bitten'>.mp4"


@pytest.fixture(scope="session")
def served_folder(
    small_bundle: Path, small_model: Model, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Videos and `x.vtri`: ids 0 to 2 are parts of a VP9 film, from 0.25 s on; 3 is H.265 under a hostile name, 4 a
    file that is gone since, 5 one whose name is no UTF-8, 6 one outside the folder."""
    from vtr_runtime.cli import main
    from vtr_runtime.clips import Clip
    from vtr_runtime.embeddings import RowLayout, write_embeddings

    folder = tmp_path_factory.mktemp("served")
    film, foreign = clips / "media3_bear-vp9-odd-dimensions.webm", clips.parents[2] / "vtr_export" / "media"
    sources = {
        "bear.webm": film,
        HOSTILE: foreign / "torchcodec_h265_video.mp4",
        "gone.webm": film,
        os.fsdecode(b"caf\xe9.webm"): film,
    }
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)
    parts = [Clip(folder / "bear.webm", start, end) for start, end in ((0.25, 0.5), (0.5, 0.75), (0.75, 1.0))]
    others = [Clip(folder / name) for name in list(sources)[1:]]
    rows = small_model.embed_clips([*parts, *others, Clip(clips / "decord_video_180.mov")])
    write_embeddings(folder / "x.parquet", rows, RowLayout.of(small_model.manifest))
    made = ("index", small_bundle, folder / "x.parquet", "-o", folder / "x.vtri")
    assert CliRunner().invoke(main, list(map(str, made))).exit_code == 0
    (folder / "gone.webm").unlink()
    return folder


@pytest.fixture(scope="session")
def cpp_tools() -> Path:
    """The folder of the C++ tools that `make cpp` built: that of VTR_CPP_BUILD, else out/cpp/release."""
    return _of_make_cpp(Path(os.environ.get("VTR_CPP_BUILD", CPP_OUT / "release")) / "tools", "vtr-selfcheck")


@pytest.fixture(scope="session")
def cpp_bundle() -> Path:
    """The bundle of the C++ tests (mstdt, dits and a second stage, with inner stages): below VTR_TEST_DATA, else
    out/cpp/data."""
    return _of_make_cpp(Path(os.environ.get("VTR_TEST_DATA", CPP_OUT / "data")) / "model" / "bundle", "manifest.json")


def _of_make_cpp(folder: Path, file: str) -> Path:
    """The folder where it holds `file`, else a skip; a failure with VTR_REQUIRE_CPP=1."""
    if not (folder / file).is_file():
        reason = f"{folder / file} is not there; run make cpp first, or set VTR_CPP_BUILD and VTR_TEST_DATA"
        (pytest.fail if os.environ.get("VTR_REQUIRE_CPP") == "1" else pytest.skip)(reason)
    return folder
