"""The C++ runtime's tables of characters are what their script makes of this Python's."""

from __future__ import annotations

import runpy
import unicodedata
from pathlib import Path

import pytest

CPP = Path(__file__).parent.parent.parent / "runtime" / "cpp"


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables are of Python 3.11's Unicode 14")
def test_the_tables_are_what_their_script_makes() -> None:
    made = runpy.run_path(str(CPP / "scripts" / "make_text_tables.py"))["tables"]()
    assert sorted(path.name for path in made) == ["tables_entities.cc", "tables_unicode.cc"]
    assert [path.name for path, content in made.items() if path.read_text(encoding="ascii") != content] == []
