"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
backend_option = click.option(
    "--backend",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Engine that runs the graphs: onnx-cpu, onnx-cuda, onnx-tensorrt, onnx-trt-rtx, trt, trt-rtx, openvino.",
)
decoder_option = click.option(
    "--decoder",
    type=click.Choice(["cpu", "nvdec"]),
    default="cpu",
    show_default=True,
    help="nvdec: an NVIDIA GPU decodes what it can, the CPU the rest; the same frames.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")


class BackendChoice(TypedDict):
    """What `load` takes of the command line: `load(bundle, **backend)`."""

    backend: str
    allow_fallback: bool
    engine_dir: Path | None


_BACKEND_OPTIONS = (
    backend_option,
    click.option("--engine-dir", type=click.Path(path_type=Path), help="Where engines are. [default: in the bundle]"),
    click.option("--allow-fallback", is_flag=True, help="Parts of a graph may run elsewhere than on --backend."),
)


def backend_options(command: F) -> F:
    """Add the options that choose a backend; the command takes them as one argument, `backend: BackendChoice`."""

    @wraps(command)
    def gathered(*args: Any, backend: str, engine_dir: Path | None, allow_fallback: bool, **kwargs: Any) -> Any:
        choice = BackendChoice(backend=backend, allow_fallback=allow_fallback, engine_dir=engine_dir)
        return command(*args, backend=choice, **kwargs)

    decorated: Any = gathered
    for option in reversed(_BACKEND_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
