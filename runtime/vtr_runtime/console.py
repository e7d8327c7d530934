"""What every command of the project shares: exit statuses, `--json`, plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .errors import VtrError


class _ExitStatuses(click.Command):
    """Commands end with the project's exit statuses (see errors.py); 130 when interrupted."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
            sys.exit(result if isinstance(result, int) else 0)
        except click.exceptions.Exit as end:
            sys.exit(end.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except VtrError as error:
            fail(error)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            sys.exit(130)


class Cli(_ExitStatuses, click.Group):
    """A group of commands."""


class SingleCli(_ExitStatuses):
    """A program that is one command."""


def fail(error: VtrError) -> NoReturn:
    """Print the one sentence and end with the error's exit status."""
    note(f"error: {error}")
    sys.exit(error.exit_status)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value))


def note(text: str) -> None:
    """A line for the person at the terminal; results go to standard output, everything else here."""
    click.echo(printable(text), err=True)


def printable(value: object) -> str:
    """Text for a terminal: bytes of a file name that are no UTF-8 are shown as escapes, control characters too."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output. Numbers are the caller's to format."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    view = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*[printable(cell) for cell in row])
    console = Console(width=None if sys.stdout.isatty() else 140, markup=False, highlight=False)
    console.print(view)


@contextmanager
def progress(label: str, total: int | None, *, done: int = 0) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a plain line at most every ten seconds. Both go to standard error, with the rate
    and the time left. `done` of the `total` steps were done before."""
    bar = Progress(label, total, done)
    try:
        yield bar
    finally:
        bar.close()


class Progress:
    """Counts steps done; `advance(note=...)` shows the note beside the count."""

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        import time

        self._label, self._total, self._before, self._done, self._clock = label, total, done, done, time.monotonic
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=done, note="")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self._done += steps
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, note=f"{self._rate():.2g}/s {note}")
        elif self._clock() - self._said >= 10:
            self._said = self._clock()
            left = "" if self._total is None or not self._rate() else self._time_left()
            self._say(f"{left} {note}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._say("")

    def _rate(self) -> float:
        return (self._done - self._before) / max(self._clock() - self._start, 1e-9)

    def _time_left(self) -> str:
        assert self._total is not None
        seconds = round((self._total - self._done) / self._rate())
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def _say(self, note_text: str) -> None:
        of = f"/{self._total}" if self._total is not None else ""
        seconds = self._clock() - self._start
        note(f"{self._label}: {self._done}{of} in {seconds:.0f} s, {self._rate():.2g}/s {note_text}".rstrip())
