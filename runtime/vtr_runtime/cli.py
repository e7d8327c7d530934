"""`vtr-runtime`: the group of commands."""

from __future__ import annotations

import sys

import click

from .commands.bench import bench
from .commands.build import build
from .commands.embed import embed
from .commands.index import index
from .commands.info import info
from .commands.search import search
from .commands.serve import serve
from .console import Cli


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-runtime")
def main() -> None:
    """Embed and search videos and sentences from a vtr-export bundle."""


for command in (info, embed, index, search, serve, build, bench):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
