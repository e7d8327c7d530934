"""The page: what it says, that it needs nothing else, and that a browser shows it as it is meant."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vtr_conformance.report.page import MANY_ROWS, make_page, render, write_page
from vtr_conformance.results import Report, Result
from vtr_runtime.stages import STAGES

from .synthetic import DETAILS, REPORT, RESULTS, RETRIEVAL

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tags(HTMLParser):
    """Which elements a page has, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render(make_page(REPORT)).decode()


@pytest.fixture(scope="module")
def tags(html: str) -> Tags:
    return Tags(html)


def many(count: int) -> Report:
    """A report of so many results, most of which passed."""
    rows = [
        Result("vtr-runtime", "onnx-cpu", STAGES[n % 12].name, f"a case with number {n}", "pass", 1e-7, 1e-5, f"at {n}")
        for n in range(count - 2)
    ]
    rows += [
        Result("vtr-runtime", "onnx-cpu", "aligned", "the bad one", "fail", 1e-3, 1e-5, "at caption 1", "fp16"),
        Result("vtr-runtime", "trt", "aligned", "the absent one", "not_run", hint="no GPU"),
    ]
    return Report(tuple(rows), (RETRIEVAL,), details=DETAILS)


def test_the_page_needs_nothing_else(html: str, tags: Tags) -> None:
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in tags.tags)
    assert not [attributes for _, attributes in tags.tags if {"href", "srcset", "style"} & set(attributes)]
    assert len(tags.named("script")) == 1
    assert "src" not in tags.named("script")[0]
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    pictures = tags.named("img")
    assert len(pictures) == 4  # stages, modules, similarities, speed
    for picture in pictures:
        assert picture["alt"]
        kind, _, content = str(picture["src"]).partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawing = ElementTree.fromstring(base64.b64decode(content))
        links = [value for node in drawing.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(link.startswith("#") for link in links)


def test_the_verdict_stands_on_top(tags: Tags) -> None:
    text = tags.text
    order = [
        "Conformance of custom, fp32",
        "✗ Failed",
        REPORT.verdict,
        "2026-01-02, a processor; space 5555555555555555",
        "the first is the one at fault",
        "pixels moved by 3",
        "video_embedding moved by inf",
        "rerank failed",
        "Not run, so not proved",
        "1 of vtr-runtime trt (aligned): no GPU",
        "2 of vtr-runtime trt (sampler_step): no output",
        "Stage by stage",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        (Report(RESULTS[:1]), "failed", "Nothing was checked"),
        (Report((RESULTS[2], replace(RESULTS[2], stage="video_embedding"))), "passed", "Passed"),
        (Report(RESULTS[2:3], precision="fp32"), "unproved", "Passed, but fp32 is not proved"),
        (Report((RESULTS[2], RESULTS[3])), "failed", "Failed"),
        (Report(()), "failed", "Nothing was checked"),
    ],
)
def test_what_the_verdict_may_be(report: Report, state: str, words: str) -> None:
    head = make_page(report).head
    assert (head.state, head.words) == (state, words)
    assert words in Tags(render(make_page(report)).decode()).text


def test_cells_say_status_and_figures_in_words(tags: Tags) -> None:
    for words in (
        "✓ no difference",
        "✗ 3",
        "✗ inf of 1e-05",
        "✗ no answer",
        "○ not run",
        "✓ 2e-07 of 1e-05",
        "44 (-1)",
        "71 of 80",
        "Worst queries",
        "pytorch bear.webm 0.303000 0.299000",
        "gelu 2 of 3",
        "ms.BiasGelu 0 2",
        "video.temporal inf 12",
        "16 2 7",  # median ms, ms an item, times
        "timing of another host was not possible",
        "vtr-conformance run BUNDLE --ckpt best.pt",
        "7" * 64,
        "torch 2.11",
    ):
        assert words in tags.text


def test_failures_come_first_in_the_table(html: str) -> None:
    states = [str(row["data-s"]) for row in Tags(html).named("tr") if "data-s" in row]
    assert states == ["fail"] * 3 + ["not_run"] * 3 + ["pass"] * 3


def test_names_are_text(html: str, tags: Tags) -> None:
    assert "<script>document" not in html
    assert any("<script>document.title='bitten'</script> & \"x\" 'y' \\x00\\x0b\\udce9" in p for p in tags.pieces)
    assert not [letter for letter in html if not (letter.isprintable() or letter == "\n")]


def test_a_host_of_any_name_is_drawn() -> None:
    """matplotlib would take what stands between two $ for a formula, and refuse a wrong one."""
    name = "_a $x^{ host $"
    results = tuple(replace(result, host=name) for result in RESULTS)
    named = {
        part: tuple(replace(item, host=name) for item in getattr(DETAILS, part)) for part in ("latencies", "scores")
    }
    page = make_page(Report(results, (replace(RETRIEVAL, host=name),), details=replace(DETAILS, **named)))
    assert page.overview is not None
    assert name in base64.b64decode(page.overview.uri.partition(",")[2]).decode()


def test_thousands_of_results_stay_below_two_megabytes(tmp_path: Path) -> None:
    write_page(many(6000), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 2e6


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a report in the browser, without network; whatever the page logs fails the test."""
    troubles: list[str] = []
    pages = []

    def open_page(report: Report, **options: Any) -> Any:
        write_page(report, tmp_path / "report.html")
        page = browser.new_page(offline=True, **options)
        pages.append(page)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else troubles.append(r.url))
        page.goto((tmp_path / "report.html").as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert troubles == []


def shown(page: Any) -> list[str]:
    return list(page.eval_on_selector_all("#results tbody tr:not([hidden])", "rows => rows.map(r => r.dataset.s)"))


def test_the_table_is_filtered_in_the_browser(show: Any) -> None:
    page = show(REPORT)
    assert page.title() == "Failed: Conformance of custom, fp32"
    assert len(shown(page)) == 9
    assert page.locator("#shown").inner_text() == "9 of 9 results"
    page.select_option("select[name=status]", "open")
    assert shown(page) == ["fail"] * 3 + ["not_run"] * 3
    page.select_option("select[name=host]", "vtr-runtime trt")
    assert shown(page) == ["not_run"] * 3
    page.select_option("select[name=stage]", "sampler_step_3")
    assert page.locator("#shown").inner_text() == "1 of 9 results"
    page.select_option("select[name=stage]", "")
    page.fill("input[name=words]", "NO GPU")
    assert shown(page) == ["not_run"]
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 300)")
    assert page.title() == "Failed: Conformance of custom, fp32"


def test_long_tables_begin_with_what_is_open(show: Any) -> None:
    page = show(many(MANY_ROWS + 1))
    assert shown(page) == ["fail", "not_run"]
    page.select_option("select[name=status]", "all")
    assert len(shown(page)) == MANY_ROWS + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(show: Any, scheme: str) -> None:
    page = show(REPORT, viewport={"width": 420, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(255, 255, 255)") == (scheme == "light")


def test_without_script_and_on_paper_everything_is_there(show: Any) -> None:
    page = show(REPORT, java_script_enabled=False)
    assert page.locator("#results tbody tr").count() == 9
    assert page.locator("#filters").is_hidden()
    page = show(REPORT)
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.evaluate("getComputedStyle(document.getElementById('results')).overflow") == "visible"


def test_a_script_that_slipped_in_would_not_run(browser: Any, tmp_path: Path) -> None:
    """The policy allows the page's own script by its hash, and no other."""
    text = render(make_page(REPORT)).decode()
    bitten = text.replace("<section>", "<script>document.title='bitten'</script><section>", 1)
    (tmp_path / "bitten.html").write_text(bitten)
    page = browser.new_page()
    page.goto((tmp_path / "bitten.html").as_uri())
    assert page.title().startswith("Failed")
    assert page.locator("#shown").inner_text() == "9 of 9 results"
    page.close()
