"""A picture of the search page, for docs/serve.md.

    make demo
    python benchmarks/service/screenshot.py out/demo "a green circle slides up, then down" -o docs/pictures/serve.png

The demo's test clips, which its model never saw, are joined into films of half a minute, in an order of chance that
repeats; the films are embedded by windows and searched in a headless Chromium."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import click
import uvicorn
from playwright.sync_api import sync_playwright

from vtr_runtime import Clip, Model, Windows, load
from vtr_runtime.console import SingleCli, note
from vtr_runtime.embeddings import EmbeddingFile, RowLayout, write_embeddings
from vtr_runtime.errors import UsageError
from vtr_runtime.index import Index, write_index
from vtr_runtime.publish import staged_file
from vtr_runtime.serve.app import make_app
from vtr_runtime.serve.service import Service
from vtr_runtime.serve.settings import Settings

CLIPS_OF_A_FILM = 15
CLIP_SECONDS, RATE, SIDE = 2, 12, 112  # as the demo writes them
VIEW = {"width": 1120, "height": 660}


@click.command(cls=SingleCli)
@click.argument("demo", type=click.Path(path_type=Path))
@click.argument("sentence")
@click.option("--bundle", type=click.Path(path_type=Path), help="Instead of the demo's own.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="docs/pictures/serve.png", show_default=True)
def main(demo: Path, sentence: str, bundle: Path | None, output: Path) -> None:
    """Draw what the page shows for SENTENCE."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UsageError("there is no chromium on the path; install one")
    model = load(bundle or demo / "bundle")
    with TemporaryDirectory() as folder:
        place = Path(folder)
        index = index_films(model, join_clips(test_clips(demo / "data"), place), place)
        with served(Service(model, index, Settings())) as address, staged_file(output) as staged:
            take_picture(browser, address, sentence, staged)
    note(f"{output}: {output.stat().st_size / 1000:.0f} kB")


def test_clips(data: Path) -> list[Path]:
    lines = map(json.loads, (data / "data.jsonl").read_text(encoding="utf-8").splitlines())
    clips = [data / line["video"] for line in lines if line["split"] == "test"]
    random.Random(0).shuffle(clips)
    return clips


def join_clips(clips: Sequence[Path], folder: Path) -> list[Path]:
    films = []
    for start in range(0, len(clips), CLIPS_OF_A_FILM):
        films.append(folder / f"film {len(films) + 1}.webm")
        write_film(films[-1], clips[start : start + CLIPS_OF_A_FILM])
    return films


def write_film(path: Path, clips: Sequence[Path]) -> None:
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libvpx-vp9", rate=RATE, options={"crf": "20", "b": "0", "cpu-used": "8", "g": "24"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number, frame in enumerate(frames_of(clips)):
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def frames_of(clips: Sequence[Path]) -> Iterator[av.VideoFrame]:
    for clip in clips:
        with av.open(str(clip)) as container:
            yield from container.decode(video=0)


def index_films(model: Model, films: Sequence[Path], folder: Path) -> Index:
    rows = model.embed_clips([Clip(film) for film in films], windows=Windows(CLIP_SECONDS, CLIP_SECONDS))
    write_embeddings(folder / "x.parquet", rows, RowLayout.of(model.manifest))
    write_index(folder / "x.vtri", EmbeddingFile(folder / "x.parquet"))
    return Index(folder / "x.vtri")


@contextmanager
def served(service: Service) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = uvicorn.Server(uvicorn.Config(make_app(service), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def take_picture(browser: str, address: str, sentence: str, output: Path) -> None:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport=VIEW, reduced_motion="reduce", color_scheme="light")
        page.goto(address)
        page.fill("#sentence", sentence)
        page.keyboard.press("Enter")
        page.wait_for_selector("#hits video[src]")
        ready = "() => [...document.querySelectorAll('#hits video[src]')].every(v => v.readyState == 4 && !v.seeking)"
        page.wait_for_function(ready)
        page.wait_for_timeout(4000)  # the players no longer show that they load
        page.screenshot(path=output, type="png")
        opened.close()


if __name__ == "__main__":
    sys.exit(main())
