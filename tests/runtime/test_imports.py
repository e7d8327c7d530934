"""The runtime stays light: what a fresh interpreter loads, and how long `--help` takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

FORBIDDEN = ("torch", "torchvision", "open_clip", "onnx", "onnxscript", "vtr_export", "vtr_training", "vtr_conformance")
COMMANDS = {
    "vtr-runtime": ["", "bench", "info", "build", "embed", "index", "search", "serve"],
    "vtr-export": [""],
    "vtr-train": ["", "demo-data", "fit", "evaluate", "compare", "report"],
    "vtr-conformance": ["", "run", "compare"],
}
BIN = Path(sys.executable).parent


def test_an_embed_run_loads_neither_torch_nor_the_exporter(
    small_bundle: Path, good_clips: list[Path], tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from vtr_runtime.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print(sorted(set({FORBIDDEN!r}) & set(sys.modules)))\n"
    )
    for arguments in (
        ["embed", str(small_bundle), str(good_clips[0]), "-o", str(tmp_path / "x.parquet")],
        ["index", str(small_bundle), str(tmp_path / "x.parquet"), "-o", str(tmp_path / "x.vtri")],
        ["search", str(small_bundle), str(tmp_path / "x.vtri"), "a dog", "--sheet", str(tmp_path / "x.png")],
    ):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("program", "command"), [(p, c) for p, names in COMMANDS.items() for c in names])
def test_help_answers_in_half_a_second(program: str, command: str) -> None:
    """The contract's own limit; the best of five, because the machine may be busy with something else."""
    arguments = [str(BIN / program), *command.split(), "--help"]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.5:
            break
    assert "Usage:" in done.stdout
    assert min(seconds) < 0.5


def test_the_public_names_are_there() -> None:
    import vtr_export
    import vtr_runtime

    for package in (vtr_runtime, vtr_export):
        assert package.__all__ == sorted(package.__all__)
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            package.nothing  # noqa: B018
