"""`vtr-conformance`: run, compare, golden, mutants."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from vtr_runtime.console import Cli, echo_json, json_option, note
from vtr_runtime.errors import UsageError

from .examples import EXAMPLES


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
@click.option(
    "--host",
    "commands",
    multiple=True,
    metavar="COMMAND",
    help="Command of a host that speaks the protocol of docs/certify-a-host.md, {bundle} in it replaced; repeatable.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Most that a host may take for one request. [default: 900 for the first of a kind, later by what they took]",
)
@click.option("--build-engines", is_flag=True, help="Build engines of trt-rtx although the bundle holds some.")
@click.option("--batch", default="1:3:8", show_default=True, help="MIN:OPT:MAX of the profile whose corners are run.")
@click.option(
    "--data",
    metavar="SPEC",
    help="Data set whose ranking is compared; needs --ckpt. `none`: no ranking. [default: a small generated one]",
)
@click.option("--split", default="test", show_default=True, help="Split of --data.")
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=EXAMPLES,
    show_default=True,
    help="Inputs that are drawn for each property of a graph; for video a quarter of it.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Folder for conformance.jsonl, junit.xml, report.html.")
@click.option("--modules/--no-modules", default=True, help="In the report: errors by PyTorch module. [default: yes]")
@click.option("--speed/--no-speed", default=True, help="In the report: speed beside quality. [default: yes]")
@json_option
def run(
    bundle: Path,
    ckpt: Path | None,
    backends: tuple[str, ...],
    commands: tuple[str, ...],
    time_limit: float | None,
    build_engines: bool,
    batch: str,
    data: str | None,
    split: str,
    examples: int,
    report: Path | None,
    modules: bool,
    speed: bool,
    as_json: bool,
) -> int:
    """Check BUNDLE against its golden vectors, and against PyTorch where the checkpoint is given.

    Ends with 3 when a gate is not met. With --report BUNDLE/reports the verdict in the bundle's README is renewed."""
    from hypothesis.configuration import set_hypothesis_home_dir

    from .details.about import command_line
    from .details.records import Wanted
    from .hosts import ProcessOptions
    from .report import print_report, write_report
    from .report.readme import check_writable, is_own_folder, renew_readme
    from .run import run as run_cases

    set_hypothesis_home_dir(os.devnull)  # it would keep a folder of its own where the command is run
    own = report is not None and is_own_folder(bundle, report)
    if own:
        check_writable(bundle)
    wanted = None if report is None else Wanted(modules, speed, command_line(click.get_current_context()))
    found = run_cases(
        bundle,
        checkpoint=ckpt,
        backends=backends,
        data=data,
        split=split,
        batches=_sizes(batch),
        commands=commands,
        process=ProcessOptions(time_limit, report / "logs" if report is not None else None),
        build_engines=build_engines,
        examples=examples,
        wanted=wanted,
    )
    if report is not None:
        note(f"report: {', '.join(map(str, write_report(found, report)))}")
    if own:
        note(renew_readme(found, bundle))
    if as_json:
        echo_json(found.as_json())
    else:
        print_report(found, f"conformance of {bundle}")
        click.echo(found.verdict)
    return 0 if found.passed else 3


@main.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--backend", default="auto", show_default=True, help="Engine that runs both, or `typed-graph`.")
@json_option
def compare(a: Path, b: Path, backend: str, as_json: bool) -> int:
    """Show what changed from bundle A to bundle B: contract, graphs, golden vectors, embeddings, rankings.

    Ends with 3 when B has another contract, or moved by more than A's gates allow."""
    from dataclasses import asdict

    from vtr_runtime.bundle import open_bundle

    from .bundle_diff import diff_bundles
    from .report.diff import print_diff
    from .results import strict

    diff = diff_bundles(open_bundle(a), open_bundle(b), backend)
    if as_json:
        echo_json({**strict(asdict(diff)), "verdict": diff.verdict, "searchable": diff.searchable})
    else:
        print_diff(diff)
    return diff.exit_status


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--ckpt", required=True, type=click.Path(path_type=Path), help="Checkpoint that BUNDLE was exported from."
)
@click.option("--write", is_flag=True, help="Publish a bundle that has the new golden vectors, as -o.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle folder to write, with --write.")
@json_option
def golden(bundle: Path, ckpt: Path, write: bool, output: Path | None, as_json: bool) -> int:
    """Make the golden vectors of BUNDLE anew from its checkpoint and show what differs from those in it.

    Ends with 3 where a case is new, gone, or moved beyond its limit; with --write the difference is wanted, and BUNDLE
    itself stays as it is."""
    if write != (output is not None):
        raise UsageError("--write and -o NEW go together: golden vectors are written into a new bundle, never in place")
    from .golden_command import compare_with_new

    return compare_with_new(bundle, ckpt, output, as_json=as_json)


@main.command()
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="Checkpoint whose exports are mutated.")
@click.option("--only", "names", multiple=True, metavar="NAME", help="This mutant alone; repeatable.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for mutants.jsonl.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table as a page.")
@json_option
def mutants(ckpt: Path, names: tuple[str, ...], report: Path | None, markdown: Path | None, as_json: bool) -> int:
    """Check the suite itself: deliberately wrong exports and hosts, each of which it must catch, and at its stage.

    Ends with 3 where one is not caught or blamed on another stage."""
    from .mutants.command import check_mutants

    return check_mutants(ckpt, names, report=report, markdown=markdown, as_json=as_json)


def _sizes(batch: str) -> tuple[int, ...]:
    parts = batch.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or not int(parts[0]) >= 1:
        raise UsageError(f"--batch {batch} is not MIN:OPT:MAX; give three sizes, for example 1:3:8")
    return tuple(map(int, parts))


if __name__ == "__main__":
    sys.exit(main())
