"""`vtr-conformance`: run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vtr_runtime.console import Cli, echo_json, json_option, note


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-export")
def main() -> None:
    """Prove, stage by stage, that a bundle is the trained model."""


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--ckpt", type=click.Path(path_type=Path), help="Checkpoint of the bundle: PyTorch is compared as well.")
@click.option("--backend", "backends", multiple=True, default=("auto",), show_default=True, help="Engine; repeatable.")
@click.option("--data", help="Data set (.jsonl, or a folder with data.jsonl) whose ranking is compared; needs --ckpt.")
@click.option("--split", default="test", show_default=True, help="Split of --data.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for conformance.jsonl.")
@json_option
def run(
    bundle: Path,
    ckpt: Path | None,
    backends: tuple[str, ...],
    data: str | None,
    split: str,
    report: Path | None,
    as_json: bool,
) -> int:
    """Check BUNDLE against its golden vectors, and against PyTorch where the checkpoint is given.

    Ends with 3 when a gate is not met."""
    from .report import print_report, write_report
    from .run import run as run_cases

    found = run_cases(bundle, checkpoint=ckpt, backends=backends, data=data, split=split)
    if report is not None:
        note(f"report: {write_report(found, report)}")
    if as_json:
        echo_json(found.as_json())
    else:
        print_report(found, f"conformance of {bundle}")
        click.echo(found.verdict)
    return 0 if found.passed else 3


if __name__ == "__main__":
    sys.exit(main())
