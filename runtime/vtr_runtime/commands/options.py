"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
backend_option = click.option("--backend", default="auto", show_default=True, help="Engine that runs the graphs.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
