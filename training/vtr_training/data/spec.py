"""SPEC, by which every command names a data set:

    PATH                        a generic file, or a folder that holds data.jsonl
    NAME:PATH[?KEY=VALUE&...]   a benchmark (protocols.py lists the names) whose files lie below the folder PATH
    prepared:PATH               what `vtr-train prepare` made of one of them: no video is needed any more

with the keys

    videos=DIR     the videos lie there and not beside the annotations
    subset=yes     go on with what is there of the documented videos and captions
    held_out=N     N training videos become the split val, of a benchmark that has none"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from vtr_runtime.errors import ConfigError

from .protocols import PROTOCOLS

PREPARED = "prepared"
NAMES = (*PROTOCOLS, PREPARED)
KEYS = ("videos", "subset", "held_out")
_NAMED = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]+):(?P<path>[^?]*)(?:\?(?P<options>.*))?")


@dataclass(frozen=True)
class Spec:
    """`name` is None for a generic file."""

    text: str
    name: str | None
    path: Path
    videos: Path | None = None
    subset: bool = False
    held_out: int = 0

    @property
    def is_prepared(self) -> bool:
        return self.name == PREPARED

    @property
    def title(self) -> str:
        """What it is, without where it lies: for reports that travel."""
        if self.name is None or self.is_prepared:
            return self.path.absolute().name
        options = {"subset": "yes" if self.subset else "", "held_out": str(self.held_out or "")}
        given = "&".join(f"{key}={value}" for key, value in options.items() if value)
        return self.name + (f"?{given}" if given else "")


def parse_spec(spec: str | PurePath) -> Spec:
    """ConfigError for a name or a key that is not known, and for a value that is none."""
    text = str(spec)
    match = _NAMED.fullmatch(text)
    if match is None or (match["name"] not in NAMES and Path(text).exists()):
        return Spec(text, None, Path(text))
    name, path = match["name"], match["path"]
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}? Known are" if near else "known are"
        raise ConfigError(f"{text}: {name!r} is no data set; {hint} {', '.join(NAMES)}")
    if not path:
        raise ConfigError(f"{text}: no folder is named; write {name}:DIR")
    options = _options(text, match["options"] or "")
    if name == PREPARED:
        if options:
            raise ConfigError(f"{text}: a prepared folder takes no options; they were given when it was prepared")
        return Spec(text, name, Path(path))
    return Spec(
        text,
        name,
        Path(path),
        videos=Path(options["videos"]) if "videos" in options else None,
        subset=_yes(text, options.get("subset", "no")),
        held_out=_count(text, name, options.get("held_out", "0")),
    )


def replace_place(spec: str, place: str) -> str:
    """`spec` with the data in `place`: a folder, or a SPEC that replaces it whole."""
    named, given = _NAMED.fullmatch(spec), _NAMED.fullmatch(place)
    if named is None or (given is not None and not Path(place).exists()):
        return place
    options = [item for item in (named["options"] or "").split("&") if item and not item.startswith("videos=")]
    return f"{named['name']}:{place}" + (f"?{'&'.join(options)}" if options else "")


def _options(text: str, given: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, given.split("&")):
        key, equals, value = item.partition("=")
        if key not in KEYS or not equals or not value or key in options:
            raise ConfigError(f"{text}: {item!r} is no KEY=VALUE of {', '.join(KEYS)}, each once; mend the SPEC")
        options[key] = value
    return options


def _yes(text: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise ConfigError(f"{text}: subset is {value!r}; write yes or no")
    return value == "yes"


def _count(text: str, name: str, value: str) -> int:
    train = PROTOCOLS[name].splits.get("train")
    most = (train.videos or train.captions or 0) if train else 0
    if not value.isdecimal() or int(value) >= max(most, 1):
        raise ConfigError(f"{text}: held_out is {value!r}; give a number below the {most} training videos")
    if int(value) and "val" in PROTOCOLS[name].splits:
        raise ConfigError(f"{text}: {name} has a split val of its own; leave held_out out")
    return int(value)
