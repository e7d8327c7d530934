"""`vtr-runtime build`"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from ..console import echo_json, json_option, note, table
from ..engines.options import build_options, engine_options, given_options
from .options import bundle_argument, overwrite_option


@click.command()
@bundle_argument
@click.option("--target", required=True, type=click.Choice(["trt", "trt-rtx", "openvino"]), help="Engine to build.")
@click.option(
    "--engine-dir", type=click.Path(path_type=Path), help="Where to put it. [default: the bundle's folder engines]"
)
@click.option(
    "--refit", type=click.Path(path_type=Path), help="Engine folder that takes this bundle's weights instead."
)
@engine_options
@overwrite_option
@json_option
def build(
    bundle: Path,
    target: str,
    engine_dir: Path | None,
    refit: Path | None,
    overwrite: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Build engines of BUNDLE's graphs on this machine, without torch.

    \b
    vtr-runtime build bundle/ --target trt                  on the GPU that will run them
    vtr-runtime build bundle/ --target trt-rtx --sm 86,89   without a GPU
    vtr-runtime build bundle/ --target trt --refit OLD      new weights into an engine built with --refittable"""
    from ..bundle import open_bundle
    from ..engines.openvino_build import build_openvino
    from ..engines.record import ENGINES
    from ..engines.tensorrt_build import build_tensorrt
    from ..engines.tensorrt_refit import refit_engine
    from ..targets import TARGETS

    TARGETS[target].check_options(given_options(engine))
    options = build_options(engine)
    opened = open_bundle(bundle)
    folder = engine_dir or bundle / ENGINES
    if refit is not None:
        record = refit_engine(refit, opened, engine_dir=folder, overwrite=overwrite, say=note)
    elif target == "openvino":
        record = build_openvino(opened, engine_dir=folder, overwrite=overwrite, say=note)
    else:
        kind: Literal["trt", "trt-rtx"] = "trt" if target == "trt" else "trt-rtx"
        record = build_tensorrt(opened, kind, options, engine_dir=folder, overwrite=overwrite, say=note)
    if as_json:
        echo_json(record.model_dump(mode="json"))
        return
    rows = [(name, f"{entry.size / 1e6:.1f}") for name, entry in record.files.items()]
    table(f"{folder / record.id} in {record.seconds:.0f} s", ("file", "MB"), rows)
    for name, used in record.precision_used.items():
        click.echo(f"{name}: {used.precision} ({used.source}: {used.counts})")
    click.echo(f"next: vtr-conformance run {bundle}")
