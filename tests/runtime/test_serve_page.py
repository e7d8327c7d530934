"""The search page in a real browser."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vtr_runtime.index import Index
from vtr_runtime.model import Model
from vtr_runtime.serve.app import make_app
from vtr_runtime.serve.service import Service
from vtr_runtime.serve.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@pytest.fixture(scope="module")
def address(small_model: Model, served_folder: Path) -> Iterator[str]:
    import uvicorn

    service = Service(small_model, Index(served_folder / "x.vtri"), Settings())
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = uvicorn.Server(uvicorn.Config(make_app(service), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """The page, without anything that moves by itself; whatever it logs as an error fails the test."""
    page = browser.new_page(reduced_motion="reduce")
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if "Content Security" in message.text else None)
    page.goto(address)
    yield page
    page.close()
    assert troubles == []


def search(page: Page, text: str) -> None:
    page.wait_for_function("() => document.activeElement.id === 'sentence'")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#hits li")


def test_a_sentence_shows_clips_that_begin_at_the_moment(page: Page, small_model: Model, served_folder: Path) -> None:
    search(page, "a bear walks")
    query = small_model.encode_texts(["a bear walks"])
    [files] = Index(served_folder / "x.vtri").search_files(query, 12, 3)
    cards = page.query_selector_all("#hits li")
    assert len(cards) == len(files) == 5
    place = next(n for n, hits in enumerate(files) if hits[0].path.name == "bear.webm")
    best, *others = files[place]
    assert cards[place].query_selector(".name").inner_text() == "bear.webm"
    assert cards[place].query_selector(".score").inner_text() == f"{best.score:.3f}"
    video = cards[place].query_selector("video")
    assert best.start is not None
    assert best.start >= 0.25
    assert settled(page, video) == pytest.approx(best.start, abs=0.04)
    buttons = cards[place].query_selector_all(".others button")
    assert len(buttons) == len(others) == 2
    video.focus()
    page.wait_for_function("video => !video.paused || video.ended || video.currentTime > 0.3", arg=video)
    buttons[1].click()
    page.wait_for_function("([v, t]) => Math.abs(v.currentTime - t) < 0.3", arg=[video, others[1].start])
    assert video.evaluate("video => video.src").endswith(f"#t={others[1].start},{others[1].end:g}")


def settled(page: Page, video: Any) -> float:
    """Where the player stands once it has the file's first frames."""
    page.wait_for_function("video => video.readyState >= 2 && !video.seeking", arg=video)
    return float(video.evaluate("video => video.currentTime"))


def test_the_first_clip_plays_where_motion_is_welcome(browser: Any, address: str) -> None:
    page = browser.new_page(reduced_motion="no-preference")
    page.goto(address + "/?q=a+bear")
    page.wait_for_selector("#hits video")
    first = page.query_selector("#hits video")
    page.wait_for_function("video => video.played.length > 0 || !video.isConnected", arg=first)
    assert first.evaluate("video => video.muted")
    page.close()


def test_what_cannot_be_played_is_shown_as_a_picture(page: Page) -> None:
    """H.265, which Chromium has no decoder for; and a file that is gone, for which there is a sentence."""
    search(page, "a bear walks")
    card = page.locator("#hits li", has_text="<img src=x")
    card.scroll_into_view_if_needed()
    picture = card.locator("img")
    picture.wait_for()
    page.wait_for_function("() => document.querySelector('#hits img').naturalWidth > 0")
    assert "cannot play" in card.locator(".trouble").inner_text()
    gone = page.locator("#hits li", has_text="gone.webm")
    gone.scroll_into_view_if_needed()
    gone.locator(".trouble", has_text="is gone or cannot be read").wait_for()


def test_names_of_files_are_text(page: Page) -> None:
    search(page, "a bear walks")
    names = page.locator(".name").all_inner_texts()
    assert "<img src=x onerror=document.title='bitten'>.mp4" in names
    assert "caf\\udce9.webm" in names
    time.sleep(0.2)
    assert page.title() == "Video search"
    assert page.locator(".name img").count() == 0


def test_refusals_and_empty_results_are_said(page: Page) -> None:
    state = page.locator("#state")
    page.route("**/v1/search", lambda route: route.fulfill(json={"results": [{"text": "a", "hits": []}]}))
    page.fill("#sentence", "a")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('state').textContent === 'nothing found'")
    page.unroute("**/v1/search")
    page.evaluate("document.getElementById('sentence').removeAttribute('maxlength')")
    page.fill("#sentence", "&" + "amp;" * 60 + "lt;")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('state').classList.contains('error')")
    assert "still changes" in state.inner_text()
    page.route("**/v1/search", lambda route: route.abort())
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('state').textContent.includes('does not answer')")
    assert page.locator("#hits li").count() == 0
