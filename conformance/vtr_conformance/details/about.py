"""What was checked, where, when and by which command."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vtr_runtime.bundle import MANIFEST, Bundle
from vtr_runtime.machine import describe_machine
from vtr_runtime.manifest import file_sha256

from .records import About

LIBRARIES = ("vtr-export", "vtr-runtime", "onnxruntime", "torch", "openvino", "tensorrt", "numpy")


def describe(bundle: Bundle, command: str) -> About:
    manifest = bundle.manifest
    hint = f" as a compile hint on {manifest.graph_precision} graphs"
    return About(
        model=manifest.name,
        precision=manifest.precision + (hint if manifest.precision != manifest.graph_precision else ""),
        space=manifest.space,
        variant=manifest.variant,
        manifest_sha256=file_sha256(bundle.folder / MANIFEST),
        made_with=dict(manifest.versions),
        machine=describe_machine(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1), LIBRARIES),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
    )


def command_line(context: click.Context) -> str:
    """The command as it was given, every path by its last part: a report travels with its bundle, folders do not."""
    words = ["vtr-conformance", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += _given(parameter, context.params[name])
    return shlex.join(words)


def _given(parameter: click.Parameter, value: Any) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(parameter, click.Argument):
        return [parameter.human_readable_name]
    assert isinstance(parameter, click.Option)
    if parameter.is_flag:
        return [(parameter.opts if value else parameter.secondary_opts)[0]]
    return [word for item in values for word in (parameter.opts[0], _without_folders(item))]


def _without_folders(value: object) -> str:
    if isinstance(value, Path):
        return value.name or str(value)
    return re.sub(r"[^\s=]*/(?=[^\s/])", "", str(value))
