"""Shared by every test: where the clips lie, and one small trained-like bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def clips() -> Path:
    """Real clips, each with its licence stated in LICENCES.md."""
    return ROOT / "tests" / "data" / "videos"
