"""Write src/tables_unicode.cc and src/tables_entities.cc: what Python's text cleaning knows of characters.

    python runtime/cpp/scripts/make_text_tables.py [--check]

Every entry is asked of the very functions that the Python runtime calls (ftfy, html, str, re, unicodedata), so that
C++ cleans as they do, whatever Unicode version a system's libraries have. `--check` writes nothing and fails where a
file would change."""

from __future__ import annotations

import html.entities
import re
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import ftfy
from ftfy import chardata, fixes

SOURCES = Path(__file__).resolve().parent.parent / "src"
UNICODE = "14.0.0"  # Python 3.11's; another Python would write other tables
BLOCK = 128
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # composed and decomposed by arithmetic
FLAGS = ("cased", "case_ignorable", "decimal", "white", "removed", "second", "composed", "settled")  # tables.h

Record = tuple[int, int, int, int, int]  # fixed, decomposed, lower (places in the pool), combining class, flags


class Pool:
    """Short strings, each stored once as its length and its code points; place 0 stands for "the character itself"."""

    def __init__(self) -> None:
        self.values = [0]
        self._places: dict[str, int] = {}

    def place(self, text: str, of: str) -> int:
        if text == of:
            return 0
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values += [len(text), *map(ord, text)]
        return self._places[text]


def fixed(char: str) -> str:
    """What ftfy's fixers of single characters make of one, in their order; the line break of two characters is not."""
    for fix in (
        fixes.fix_c1_controls,
        fixes.fix_latin_ligatures,
        fixes.fix_character_width,
        fixes.uncurl_quotes,
    ):
        char = fix(char)
    assert not set(char) & set("\n\r") or char in "\n\r"  # else a carriage return could meet a new line feed
    return char if char == "\r" else fixes.fix_line_breaks(char)


def pairs() -> dict[str, str]:
    """Primary composites: the two characters that NFC joins, and what they give."""
    found = {}
    for code in CODES:
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and unicodedata.normalize("NFC", chr(code)) == chr(code):
            found["".join(chr(int(part, 16)) for part in parts)] = chr(code)
    return found


def flags_of(char: str, seconds: set[str]) -> int:
    cased = f"{char}Σ".lower().endswith("ς")  # a final sigma follows what is cased, over what is ignorable
    removed = fixes.remove_control_chars(char) == ""
    second = char in seconds
    composed = unicodedata.normalize("NFC", char) == char and not unicodedata.combining(char) and not second
    marks = {
        "cased": cased,
        "case_ignorable": f"a{char}Σ".lower().endswith("ς") and not cased,
        "decimal": bool(re.fullmatch(r"\d", char)),
        "white": not char.split(),
        "removed": removed,
        "second": second,
        "composed": composed,
        # A line of such characters alone comes out of every fixer as it went in.
        "settled": composed and not removed and fixed(char) == char and char not in "&\r\x1b",
    }
    return sum(1 << bit for bit, name in enumerate(FLAGS) if marks[name])


def records(pool: Pool, seconds: set[str]) -> list[Record]:
    """One for every code point; surrogates, which no text holds, have an empty one."""
    found: list[Record] = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            found.append((0, 0, 0, 0, 0))
            continue
        char = chr(code)
        found.append(
            (
                pool.place(fixed(char), char),
                0 if code in HANGUL else pool.place(unicodedata.normalize("NFD", char), char),
                pool.place(char.lower(), char),
                unicodedata.combining(char),
                flags_of(char, seconds),
            )
        )
    return found


def rows(values: Iterable[str]) -> str:
    """Values in lines of at most 120 columns."""
    lines, line = [], ""
    for value in values:
        if len(line) + len(value) + 2 > 118:
            lines.append(line)
            line = ""
        line += f" {value}," if line else f"    {value},"
    return "\n".join([*lines, line])


def array(kind: str, name: str, values: Iterable[str]) -> str:
    values = list(values)
    return f"const {kind} {name}[{len(values)}] = {{\n{rows(values)}\n}};\n"


def header(what: str) -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"// {what}\n"
        f"// Written by scripts/make_text_tables.py; source: Python {version} (Unicode {unicodedata.unidata_version}), "
        f"ftfy {ftfy.__version__}. Do not edit.\n"
        '#include "tables.h"\n\nnamespace vtr::internal {\n\n'
    )


def unicode_tables() -> str:
    pool, joined = Pool(), pairs()
    jamo = {chr(code) for code in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]}
    every = records(pool, {pair[1] for pair in joined} | jamo)
    kinds = {record: number for number, record in enumerate(dict.fromkeys(every))}
    numbers = [kinds[record] for record in every]
    blocks: dict[tuple[int, ...], int] = {}
    block_of = [
        blocks.setdefault(tuple(numbers[first : first + BLOCK]), len(blocks)) for first in range(0, 0x110000, BLOCK)
    ]
    assert max(len(kinds), len(pool.values), len(blocks)) < 1 << 16
    composed = sorted((ord(pair[0]), ord(pair[1]), ord(char)) for pair, char in joined.items())
    return "".join(
        [
            header("What cleaning does with each code point."),
            array("uint16_t", "kBlockOf", map(str, block_of)),
            array("uint16_t", "kRecordOf", (str(number) for block in blocks for number in block)),
            array("CodePoint", "kRecords", (f"{{{', '.join(map(str, record))}}}" for record in kinds)),
            array("char32_t", "kStrings", (f"0x{value:X}" for value in pool.values)),
            array("Pair", "kPairs", (f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}" for a, b, c in composed)),
            f"const size_t kPairCount = {len(composed)};\n",
            "\n}  // namespace vtr::internal\n",
        ]
    )


def entity_tables() -> str:
    """html.entities.html5, with and without semicolon, and ftfy's names in capitals."""
    entities = {name: (text, True) for name, text in html.entities.html5.items()}
    for literal, text in chardata.HTML_ENTITIES.items():
        name = literal.removeprefix("&")
        assert name.endswith(";")
        assert name not in entities or entities[name][0] == text
        entities.setdefault(name, (text, False))
    names, rows_of, offset = [], [], 0
    for name in sorted(entities):
        text, html5 = entities[name]
        assert name.isascii()
        assert 2 <= len(name) <= 32
        assert 1 <= len(text) <= 3
        codes = [f"0x{ord(char):X}" for char in text] + ["0"] * (3 - len(text))
        rows_of.append(f"{{{offset}, {len(name)}, {'true' if html5 else 'false'}, {{{', '.join(codes)}}}}}")
        names.append(name)
        offset += len(name)
    assert offset < 1 << 16
    blob = "".join(names)
    lines = "\n".join(f'    "{blob[first : first + 110]}"' for first in range(0, len(blob), 110))
    return "".join(
        [
            header("The named entities of HTML, sorted by name."),
            f"const char *const kEntityNames =\n{lines};\n",
            array("Entity", "kEntities", rows_of),
            f"const size_t kEntityCount = {len(rows_of)};\n",
            "\n}  // namespace vtr::internal\n",
        ]
    )


def tables() -> dict[Path, str]:
    if unicodedata.unidata_version != UNICODE:
        raise SystemExit(
            f"this Python knows Unicode {unicodedata.unidata_version}, the tables are of {UNICODE}; use Python 3.11"
        )
    return {SOURCES / "tables_unicode.cc": unicode_tables(), SOURCES / "tables_entities.cc": entity_tables()}


def main() -> None:
    stale = []
    for path, content in tables().items():
        if path.is_file() and path.read_text(encoding="ascii") == content:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(content, encoding="ascii", newline="\n")
    if stale and "--check" in sys.argv:
        raise SystemExit(f"{', '.join(stale)} would change; run python runtime/cpp/scripts/make_text_tables.py")


if __name__ == "__main__":
    main()
