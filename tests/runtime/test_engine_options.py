"""Engine options: from the command line's words to what the builder takes, or the sentence that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from vtr_runtime.engines.options import BATCH, CANDIDATES, TEXT_BATCH, build_options, engine_options, given_options
from vtr_runtime.engines.profiles import ProfileRequest, Range
from vtr_runtime.engines.tensorrt_build import BuildOptions
from vtr_runtime.errors import UsageError


def parsed(*words: str) -> dict[str, Any]:
    """What a command with these options is given."""
    found: dict[str, Any] = {}

    @click.command()
    @engine_options
    def command(**engine: Any) -> None:
        found.update(engine)

    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == 0, done.output
    return found


def test_nothing_given_is_the_builders_own_defaults() -> None:
    engine = parsed()
    assert given_options(engine) == []
    assert build_options(engine) == build_options({}) == BuildOptions()
    request = ProfileRequest()
    assert (str(request.batch), str(request.text_batch), str(request.candidates)) == (BATCH, TEXT_BATCH, CANDIDATES)


def test_every_option_arrives() -> None:
    engine = parsed(
        *["--batch", "1:2:4", "--text-batch", "2:3:5", "--candidates", "1:7:9", "--sm", "SM8.9,120"],
        *["--workspace", "512M"],
        *["--timing-cache", "times.cache", "--version-compatible", "--hardware-compatible", "ampere+"],
        *["--refittable", "--strip", "--optimization-level", "0"],
    )
    assert build_options(engine) == BuildOptions(
        profiles=ProfileRequest(Range(1, 2, 4), Range(2, 3, 5), Range(1, 7, 9)),
        capabilities=("89", "120"),
        workspace=512 * 2**20,
        timing_cache=Path("times.cache"),
        version_compatible=True,
        hardware="ampere+",
        refit=True,
        strip=True,
        level=0,
    )
    assert len(given_options(engine)) == 11


def test_a_level_of_zero_is_given() -> None:
    """0 is a choice, not the absence of one."""
    assert given_options(parsed("--optimization-level", "0")) == ["optimization_level"]


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 2**29), ("2G", 2**31), ("1GiB", 2**30), ("3mb", 3 * 2**20), (" 4g ", 2**32)]
)
def test_sizes(text: str, size: int) -> None:
    assert build_options({"workspace": text}).workspace == size


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"batch": "8"}, "--batch '8' is not MIN:OPT:MAX"),
        ({"batch": ""}, "--batch '' is not MIN:OPT:MAX"),
        ({"batch": "8:4:2"}, "--batch '8:4:2' does not rise from 1"),
        ({"text_batch": "0:1:2"}, "--text-batch '0:1:2' does not rise from 1"),
        ({"candidates": "1:x:2"}, "--candidates '1:x:2' is not MIN:OPT:MAX"),
        ({"sm": "ada"}, "--sm 'ada' is no list of capabilities; give them as 86,89,120"),
        ({"sm": "86,,89"}, "--sm '86,,89' is no list of capabilities"),
        ({"sm": ""}, "--sm '' is no list of capabilities"),
        ({"workspace": "512"}, "--workspace '512' is no size; give it as 512M or 2G"),
        ({"workspace": "0G"}, "--workspace '0G' is no size"),
        ({"workspace": "-1G"}, "--workspace '-1G' is no size"),
    ],
)
def test_what_is_no_range_list_or_size_is_refused(engine: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_options(engine)
    assert str(caught.value).startswith(words)
