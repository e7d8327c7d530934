"""`vtr-runtime serve` before it answers: what it refuses, what it says."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vtr_runtime.cli import main
from vtr_runtime.serve import server


def serve(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing", "--port", "0"], 1, "nothing is not a folder"),
        (["BUNDLE", "--port", "0", "--index", "nothing.vtri"], 1, "nothing.vtri does not exist"),
        (["BUNDLE", "--port", "0", "--batch", "0"], 2, "batch is 0"),
        (["BUNDLE", "--port", "0", "--timeout", "nan"], 2, "timeout is nan"),
        (["BUNDLE", "--port", "0", "--media-root", "nowhere"], 2, "--media-root nowhere is not a folder"),
        (["BUNDLE", "--port", "0", "--backend", "abacus"], 2, "abacus"),
        (["BUNDLE", "--host", "no.such.name.invalid"], 1, "no.such.name.invalid:8080 cannot be taken"),
        (["BUNDLE", "--port", "65536"], 2, "65536"),
        (["BUNDLE", "--max-upload-mb", "0"], 2, "--max-upload-mb"),
    ],
)
def test_wrong_use_ends_with_its_status(small_bundle: Path, arguments: list[str], status: int, words: str) -> None:
    done = serve(*(small_bundle if argument == "BUNDLE" else argument for argument in arguments))
    assert done.exit_code == status, done.output
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_an_index_of_another_model_is_refused(small_bundle: Path, tmp_path: Path, served_folder: Path) -> None:
    raw = (served_folder / "x.vtri").read_bytes()
    from vtr_runtime.index import Index

    space = Index(served_folder / "x.vtri").space.encode()
    (tmp_path / "x.vtri").write_bytes(raw.replace(space, bytes(reversed(space))))
    done = serve(small_bundle, "--port", 0, "--index", tmp_path / "x.vtri")
    assert done.exit_code == 1
    assert "another model" in done.stderr


@pytest.mark.parametrize(("host", "is_said"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_who_can_reach_it_is_said(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, host: str, is_said: bool
) -> None:
    monkeypatch.setattr(server, "serve", lambda _, __, ready: ready())
    done = serve(small_bundle, "--port", 0, "--host", host)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"http://{host}:")
    assert ("without a password" in done.stderr) is is_said
    assert json.loads(serve(small_bundle, "--port", 0, "--host", host, "--json").stdout)["url"].startswith("http://")


def test_an_address_of_ipv6_is_written_as_one() -> None:
    opened: Any = SimpleNamespace(getsockname=lambda: ("::1", 8080, 0, 0))
    assert server.url_of(opened) == "http://[::1]:8080/"


def test_packages_that_are_missing_are_named(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "fastapi":
            raise ImportError("No module named 'fastapi'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    done = serve(small_bundle, "--port", 0)
    assert done.exit_code == 1
    assert "pip install 'vtr-runtime[serve]'" in done.stderr
