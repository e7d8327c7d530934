"""`vtr-conformance`: run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vtr_runtime.console import Cli, echo_json, json_option, note
from vtr_runtime.errors import UsageError


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-export")
def main() -> None:
    """Prove, stage by stage, that a bundle is the trained model."""


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--ckpt", type=click.Path(path_type=Path), help="Checkpoint of the bundle: PyTorch is compared as well.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    help="Engine, or `typed-graph`; repeatable. [default: auto, and typed-graph for graphs in fp16 or bf16]",
)
@click.option("--batch", default="1:3:8", show_default=True, help="MIN:OPT:MAX of the profile whose corners are run.")
@click.option("--data", metavar="SPEC", help="Data set whose ranking is compared; needs --ckpt.")
@click.option("--split", default="test", show_default=True, help="Split of --data.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for conformance.jsonl.")
@json_option
def run(
    bundle: Path,
    ckpt: Path | None,
    backends: tuple[str, ...],
    batch: str,
    data: str | None,
    split: str,
    report: Path | None,
    as_json: bool,
) -> int:
    """Check BUNDLE against its golden vectors, and against PyTorch where the checkpoint is given.

    Ends with 3 when a gate is not met."""
    from .report import print_report, write_report
    from .run import run as run_cases

    found = run_cases(bundle, checkpoint=ckpt, backends=backends, data=data, split=split, batches=_sizes(batch))
    if report is not None:
        note(f"report: {write_report(found, report)}")
    if as_json:
        echo_json(found.as_json())
    else:
        print_report(found, f"conformance of {bundle}")
        click.echo(found.verdict)
    return 0 if found.passed else 3


def _sizes(batch: str) -> tuple[int, ...]:
    parts = batch.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or not int(parts[0]) >= 1:
        raise UsageError(f"--batch {batch} is not MIN:OPT:MAX; give three sizes, for example 1:3:8")
    return tuple(map(int, parts))


if __name__ == "__main__":
    sys.exit(main())
