"""Engine options of `vtr-export` and `vtr-runtime build`, declared once; targets.py says which target has which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError

if TYPE_CHECKING:
    from .tensorrt_build import BuildOptions

F = TypeVar("F", bound=Callable[..., Any])

BATCH, TEXT_BATCH, CANDIDATES = "1:8:32", "1:16:64", "1:32:128"

_OPTIONS = (
    click.option("--batch", metavar="MIN:OPT:MAX", help=f"Clips at a time. [default: {BATCH}]"),
    click.option("--text-batch", metavar="MIN:OPT:MAX", help=f"Sentences at a time, beside 1. [default: {TEXT_BATCH}]"),
    click.option("--candidates", metavar="MIN:OPT:MAX", help=f"Videos that --rerank rescores. [default: {CANDIDATES}]"),
    click.option("--sm", metavar="SM,...", help="GPU capabilities of one engine. [default: 86,89,120]"),
    click.option("--workspace", metavar="SIZE", help="Most scratch memory of a kernel, such as 512M or 2G."),
    click.option("--timing-cache", type=click.Path(path_type=Path), help="File that keeps kernel timings."),
    click.option("--version-compatible", is_flag=True, help="Engines that later TensorRT of the same major load."),
    click.option(
        "--hardware-compatible", type=click.Choice(["ampere+", "same-capability"]), help="Engines for more GPUs."
    ),
    click.option("--refittable", is_flag=True, help="Engines whose weights can be replaced."),
    click.option("--strip", is_flag=True, help="Engines without weights, to be refitted from the bundle."),
    click.option("--optimization-level", type=click.IntRange(0, 5), help="How long the builder searches, 0 to 5."),
)


def engine_options(command: F) -> F:
    """Add them to a command, which takes them as `**engine`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_options(engine: dict[str, Any]) -> list[str]:
    """The names of those that were given."""
    return [name for name, value in engine.items() if value is not None and value is not False]


def build_options(engine: dict[str, Any]) -> BuildOptions:
    """What the builder takes. UsageError for a range, size or list that is none."""
    from .profiles import ProfileRequest, Range
    from .tensorrt_build import BuildOptions

    def sizes(name: str, default: str) -> Range:
        text = engine.get(name)
        return Range.parse(default if text is None else text, option=f"--{name.replace('_', '-')}")

    profiles = ProfileRequest(
        batch=sizes("batch", BATCH),
        text_batch=sizes("text_batch", TEXT_BATCH),
        candidates=sizes("candidates", CANDIDATES),
    )
    return BuildOptions(
        profiles=profiles,
        capabilities=_capabilities(engine.get("sm")),
        workspace=_bytes(engine.get("workspace")),
        timing_cache=engine.get("timing_cache"),
        version_compatible=bool(engine.get("version_compatible")),
        hardware=engine.get("hardware_compatible") or "none",
        refit=bool(engine.get("refittable")),
        strip=bool(engine.get("strip")),
        level=engine.get("optimization_level"),
    )


def _capabilities(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip().lower().removeprefix("sm").replace(".", "") for part in text.split(","))
    if not all(name.isascii() and name.isdigit() for name in names):
        raise UsageError(f"--sm {text!r} is no list of capabilities; give them as 86,89,120")
    return names


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+)([MG])i?B?", text.strip(), re.IGNORECASE)
    if found is None or int(found[1]) == 0:
        raise UsageError(f"--workspace {text!r} is no size; give it as 512M or 2G")
    return int(found[1]) << {"m": 20, "g": 30}[found[2].lower()]
