"""The report in a real browser: it opens, sorts, fits, and does nothing that a study's names ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.missing import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WIDTHS = (390, 1440)
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=list(CHROMIUM_FLAGS))
        yield started
        started.close()


@dataclass
class Opened:
    """A page in the browser, with all that it said and asked for."""

    page: Page
    console: list[str]
    requests: list[str]


@pytest.fixture
def opened(browser: Browser, page: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """The report at a width and in a colour scheme: parametrize as (width, scheme)."""
    width, scheme = getattr(request, "param", (1440, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    found = Opened(tab, [], [])
    tab.on("console", lambda message: found.console.append(message.text))
    tab.on("pageerror", lambda error: found.console.append(str(error)))
    tab.on("dialog", lambda dialog: (found.console.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.on("request", lambda asked: found.requests.append(asked.url))
    tab.goto(page.as_uri(), wait_until="load")
    yield found
    context.close()


def test_it_opens_in_silence_and_asks_the_network_for_nothing(opened: Opened, page: Path) -> None:
    opened.page.mouse.wheel(0, 20_000)
    opened.page.wait_for_timeout(200)
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 100)"
    assert opened.page.evaluate(loaded)
    assert opened.page.evaluate("document.scripts.length") == 1


@pytest.mark.parametrize("opened", [(w, s) for w in WIDTHS for s in ("light", "dark")], indirect=True)
def test_nothing_overflows_sideways(opened: Opened) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    outside = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.plate, .wide, .unseen, .skip, pre')
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 100))"""
    assert opened.page.evaluate(outside) == []


COLUMN = """([table, column]) => [...document.querySelectorAll(`#table-${table} tbody tr`)].map(
    row => row.cells[column].dataset.sort ?? null)"""


def test_tables_sort_by_click_and_by_keyboard(opened: Opened) -> None:
    header = opened.page.locator("#table-scaling th", has_text="samples/s")
    column = header.evaluate("header => header.cellIndex")

    def values() -> list[float]:
        return [float(value) for value in opened.page.evaluate(COLUMN, ["scaling", column])]

    before = values()
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before) != before
    opened.page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    assert opened.page.locator("#sorted").inner_text().endswith("sorted by samples/s, descending")
    other = opened.page.locator("#table-scaling th", has_text="strategy")
    other.get_by_role("button").focus()
    opened.page.keyboard.press("Space")
    assert other.get_attribute("aria-sort") == "ascending"
    assert header.get_attribute("aria-sort") is None
    names = opened.page.evaluate(COLUMN, ["scaling", other.evaluate("header => header.cellIndex")])
    assert names == sorted(names)


def test_every_table_sorts_by_every_column(opened: Opened) -> None:
    buttons = opened.page.locator("table.sortable th button")
    assert buttons.count() > 50
    for button in buttons.all():
        button.evaluate("button => button.click()")
    assert opened.console == []
    assert opened.page.locator("th[aria-sort=ascending]").count() == opened.page.locator("table.sortable").count()


def test_the_keyboard_skips_to_the_summary_first(opened: Opened) -> None:
    opened.page.keyboard.press("Tab")
    skip = opened.page.locator(".skip")
    assert skip.evaluate("link => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.activeElement.id") == "main"
    opened.page.keyboard.press("Tab")
    outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


CONTRAST = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const found = [...document.querySelectorAll('p, li, a, td, small, h1, h2, h3, dt, dd, .mark, th button, summary')]
    .filter(e => !e.closest('.skip'))
    .map(e => light(getComputedStyle(e).color))
    .map(l => (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05));
  return [paper, Math.min(...found)];
}"""


@pytest.mark.parametrize("opened", [(1440, "light"), (1440, "dark")], indirect=True, ids=["light", "dark"])
def test_text_stands_out_in_light_and_dark(opened: Opened, request: pytest.FixtureRequest) -> None:
    paper, least = opened.page.evaluate(CONTRAST)
    assert paper < 0.05 if "dark" in request.node.callspec.id else paper > 0.8
    assert least >= 4.5  # WCAG 2.2, 1.4.3
    plate = opened.page.evaluate("getComputedStyle(document.querySelector('.plate')).backgroundColor")
    assert plate == "rgb(255, 255, 255)"


def test_it_prints_without_what_paper_cannot_do(opened: Opened) -> None:
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".contents").is_visible()
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.page.pdf(format="A4")[:4] == b"%PDF"


def test_the_summary_fits_on_one_screen(opened: Opened) -> None:
    for place in (".verdict-list", ".bases", ".curve img"):
        bottom = opened.page.locator(place).first.evaluate("e => e.getBoundingClientRect().bottom")
        assert bottom <= 900, place
