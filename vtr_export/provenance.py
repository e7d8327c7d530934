"""What a bundle was made with: versions of libraries, and of this project's own source."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = (
    "vtr-export",
    "vtr-runtime",
    "torch",
    "numpy",
    "onnx",
    "onnxscript",
    "open_clip_torch",
    "tokenizers",
    "ftfy",
    "av",
    "pillow",
)


def library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def source_revision() -> dict[str, str]:
    """`revision`, the git commit of the checkout that this package runs from, "-dirty" behind it where files differ;
    nothing where it runs from no checkout: its version says all then."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return {}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git on this machine
        return {}
    return {"revision": done.stdout.strip()} if done.returncode == 0 else {}
