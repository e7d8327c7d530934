"""What Python makes of captions, for text_data_test.cc: texts, their cleaned forms, their ids.

    python runtime/cpp/tests/make_text_data.py FOLDER [--every] [--count 100000] [--annotations ARCHIVE]

Writes FOLDER/text/: tokenizer.json and one file for each set of texts. `--every` asks of every code point, else of
each below U+3400 and every 61st beyond. Needs the packages of the development install."""

from __future__ import annotations

import argparse
import html.entities
import json
import random
import runpy
import struct
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
ANNOTATIONS = ROOT.parent / "shared" / "data" / "annotations.tar.xz"
MAGIC = b"VTRTEXT1"
REFUSED = 0xFFFF

Part = Callable[[random.Random], str]


def record(tokenizer: object, text: str) -> bytes:
    """Two lengths, how many ids (or REFUSED), then text, cleaned text (or the error), ids without the zeros behind."""
    from vtr_runtime.errors import TextError
    from vtr_runtime.text import Tokenizer, clean

    assert isinstance(tokenizer, Tokenizer)
    given = text.encode()
    try:
        cleaned, row = clean(text).encode(), tokenizer.encode([text])[0]
    except TextError as error:
        told = str(error).encode()
        return struct.pack("<IIH", len(given), len(told), REFUSED) + given + told
    ids = row[: int(np.flatnonzero(row)[-1]) + 1].astype("<i4")
    return struct.pack("<IIH", len(given), len(cleaned), len(ids)) + given + cleaned + bytes(ids.tobytes())


def real_captions(archive: Path) -> list[str]:
    """The distinct captions of all benchmark annotations, as the Python test reads them."""
    captions_in = runpy.run_path(str(ROOT / "tests/export/test_tokenizer.py"))["captions_in"]
    found: set[str] = set()
    with tarfile.open(archive) as members:
        for member in members:
            if (file := members.extractfile(member)) and not member.name.endswith((".pkl", ".LICENSE")):
                found.update(captions_in(Path(member.name).name, file.read().decode()))
    return sorted(found)


def code_points(every: bool) -> Iterator[str]:
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or not (every or code < 0x3400 or code % 61 == 0):
            continue
        yield chr(code)
        yield f"a{chr(code)}b"


# What is hard for size alone, and what each limit refuses.
def limits() -> list[str]:
    amp = "&" + "amp;" * 29
    return [
        "a" * 1_000_000,
        "a" * 1_000_001,
        "é" * 1_000_000,
        "é" * 1_000_001,
        "a " * 500_000,
        "😀" * 300_000,
        "가" * 300_000,
        "\n" * 1_000_000,
        "&lt;" * 200_000,
        "&#1;" * 200_000,
        "&" * 30_000 + "#1;" * 30_000,
        "a" + "\u0301\u0323" * 50_000,
        "<\n" * 100_000,
        "\x1b[1;" * 100_000,
        "Σ'" * 100_000,
        "&#" + "9" * 90_000 + ";",
        "&#" + "0" * 90_000 + "65;",
        "&#x" + "0" * 90_000 + "41",
        *(f"{amp}{'amp;' * more}lt;" for more in range(4)),
        *(f"{amp}{'amp;' * more}lt;\n<{amp}" for more in range(4)),
        *(f"<\n{amp}{'amp;' * more}lt;" for more in range(4)),
    ]


SCRIPTS = (
    [(0x41, 0x5A), (0x61, 0x7A)], [(0xA0, 0x24F)], [(0x250, 0x36F)], [(0x370, 0x3FF)], [(0x400, 0x52F)],
    [(0x530, 0x5FF)], [(0x600, 0x6FF)], [(0x700, 0x8FF)], [(0x900, 0xDFF)], [(0xE00, 0xFFF)], [(0x1000, 0x10FF)],
    [(0x1100, 0x11FF), (0xAC00, 0xAC40)], [(0x1200, 0x13FF)], [(0x1400, 0x1AFF)], [(0x1B00, 0x1CFF)],
    [(0x1D00, 0x1FFF)], [(0x2000, 0x218F)], [(0x2190, 0x2BFF)], [(0x2C00, 0x2DFF)], [(0x2E80, 0x30FF)],
    [(0x3100, 0x33FF)], [(0x4E00, 0x4F00)], [(0xA000, 0xABFF)], [(0xAC00, 0xD7FF)], [(0xE000, 0xF8FF)],
    [(0xF900, 0xFDFF)], [(0xFE00, 0xFEFF)], [(0xFF00, 0xFFFF)], [(0x10000, 0x10FFF)], [(0x11000, 0x11FFF)],
    [(0x12000, 0x16FFF)], [(0x17000, 0x1CFFF)], [(0x1D000, 0x1DFFF)], [(0x1E000, 0x1EFFF)], [(0x1F000, 0x1FBFF)],
    [(0x20000, 0x3FFFF)], [(0x40000, 0xDFFFF)], [(0xE0000, 0xE0FFF)], [(0xF0000, 0x10FFFF)],
)  # fmt: skip
MARKS = [chr(code) for code in range(0x110000) if unicodedata.combining(chr(code))]
COMPOSED = [chr(code) for code in range(0x110000) if unicodedata.decomposition(chr(code))]
NAMES = sorted(html.entities.html5)
CONTROLS = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA1)]]
SPECIALS = [
    "<start_of_text>",
    "<end_of_text>",
    "<ſtart_of_text>",
    "<end_of_text",
    "<START_OF_TEXT>",
    "&lt;end_of_text&gt;",
]
SIGMAS = ["Σ", "ΑΣ", "Σ.", "'Σ", "Σ\u0301", "İ", "I\u0307", "ς", "ͅ", "ʰ", "ẞ", "\xad"]
ENDS = ["'s", "'re", "'S", "'ſ", "'", "’ll", "ʼd", "<", ">", "&", "#", ";", "x", "\x1b[", "[", "m", "\r", "\n", "\r\n"]


def characters(rng: random.Random) -> str:
    ranges = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 8)))


def anything(rng: random.Random) -> str:
    codes = (rng.randrange(0x110000 - 0x800) for _ in range(rng.randint(1, 4)))
    return "".join(chr(code if code < 0xD800 else code + 0x800) for code in codes)


def marked(rng: random.Random) -> str:
    marks = "".join(rng.choice(MARKS) for _ in range(rng.choice([1, 1, 2, 3, 6, 20])))
    return rng.choice([rng.choice(COMPOSED), rng.choice("aeiouAEZ="), characters(rng), ""]) + marks


def entity(rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        number = rng.choice([rng.randrange(0x110010), rng.randrange(0x180), rng.randrange(10**12), 0xD800, 0xFFFE])
        zeros = "0" * rng.choice([0, 0, 1, 20])
        body = rng.choice([f"#{zeros}{number}", f"#x{zeros}{number:x}", f"#X{zeros}{number:X}", f"#{number:x}"])
    else:
        body = rng.choice(NAMES).removesuffix(";")
        if kind == 1:
            body = rng.choice([body.upper(), body.lower(), body.title(), body[:-1], body + "x", body + "é"])
    return (
        "&" + "amp;" * rng.choice([0, 0, 0, 1, 2, 3]) + body + rng.choice([";", ";", "", " ", ";;", "&#59;", "&#x3b;"])
    )


def emoji(rng: random.Random) -> str:
    one = chr(rng.randint(0x1F300, 0x1FAFF))
    tail = ["\ufe0f", "\u200d" + chr(rng.randint(0x1F300, 0x1FAFF)), chr(rng.randint(0x1F3FB, 0x1F3FF)), "\u20e3", ""]
    return one + "".join(rng.choice(tail) for _ in range(rng.randint(0, 4)))


def mojibake(rng: random.Random) -> str:
    text = characters(rng).encode().decode(rng.choice(["latin-1", "cp1252", "cp1251", "mac_roman", "cp437"]), "replace")
    return text if rng.random() < 0.7 else text.encode().decode("latin-1")


def long_word(rng: random.Random) -> str:
    unit = rng.choice([characters(rng), marked(rng), "ab", rng.choice(ENDS), rng.choice(SPECIALS), entity(rng), "Σ"])
    return unit * rng.randint(5, 120)


def escape(rng: random.Random) -> str:
    digits = "".join(rng.choice(["1", ";", "٣", "36", "𝟘", "x"]) for _ in range(rng.randint(0, 4)))
    return rng.choice(["\x1b[", "\x1b", "\x1b［", "\x9b", "&#27;["]) + digits + rng.choice(["m", "K", "é", "", "m["])


def parts(hard: list[str], captions: list[str]) -> list[Part]:
    words = sorted({word for caption in captions for word in caption.split()}) or ["dog"]
    short = [text for text in hard if len(text) <= 80]
    return [
        *[lambda rng: rng.choice(words)] * 4,
        *[lambda rng: rng.choice(short)] * 3,
        *[characters] * 5,
        *[entity] * 3,
        *[marked] * 3,
        anything,
        emoji,
        mojibake,
        escape,
        lambda rng: rng.choice(CONTROLS),
        lambda rng: rng.choice(SPECIALS),
        lambda rng: rng.choice(SIGMAS),
        lambda rng: rng.choice(ENDS),
        lambda rng: str(rng.randrange(10 ** rng.randint(1, 9))),
    ]


def generated(count: int, hard: list[str], captions: list[str]) -> Iterator[str]:
    rng = random.Random(2024)
    choices = parts(hard, captions)
    for _ in range(count):
        glue = rng.choice([" ", " ", "", "", "\n", "a"])
        text = glue.join(rng.choice(choices)(rng) for _ in range(rng.choice([1, 2, 3, 4, 6, 10, 20])))
        yield text + (long_word(rng) if rng.random() < 0.03 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", action="store_true", help="ask of every code point")
    parser.add_argument("--count", type=int, default=100_000, help="how many texts to generate")
    parser.add_argument("--annotations", type=Path, default=ANNOTATIONS, help="the benchmarks' captions")
    options = parser.parse_args()

    from vtr_export.golden import TEXTS
    from vtr_export.tokenizer import write_tokenizer
    from vtr_runtime.text import Tokenizer

    folder: Path = options.folder / "text"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    spec = write_tokenizer(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json", spec)
    hard = [json.loads(line)["text"] for line in (ROOT / "tests/data/hard_strings.jsonl").read_text().splitlines()]
    captions = real_captions(options.annotations) if options.annotations.is_file() else []
    # The generated texts must not depend on the annotations, which are not at hand everywhere.
    words = [*TEXTS, "a man in a blue shirt is playing the guitar while two dogs run on the beach"]
    sets: dict[str, Iterable[str]] = {
        "hard": hard,
        "golden": TEXTS,
        "limits": limits(),
        "captions": captions,
        "generated": generated(options.count, hard, words),
        "code_points": code_points(options.every),
    }
    for name, texts in sets.items():
        with (folder / f"{name}.bin").open("wb") as out:
            out.write(MAGIC)
            count = 0
            for count, text in enumerate(texts, 1):  # noqa: B007
                out.write(record(tokenizer, text))
        print(f"{name}: {count} texts", file=sys.stderr)


if __name__ == "__main__":
    main()
