"""The report in a real browser, standing alone: themes, phone, print, frame, and what a screen reader meets."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from simulator.report.page import render
from tests.simulator.experiment_example import full, refused, without_new_users
from tests.simulator.many_segments import many_segments

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

RECORDS = {"full": full, "refused": refused, "new": without_new_users, "many": many_segments}
PHONE_PX, DESKTOP_PX = 400, 1_280
# The page's own surface in each theme, from its stylesheet.
LIGHT, DARK = "rgb(245, 245, 242)", "rgb(19, 21, 24)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or whatever is installed under one of its names."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "no Chromium on the PATH; 'make test' installs it where it may, else: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden records as pages."""
    found = tmp_path_factory.mktemp("pages")
    for name, record in RECORDS.items():
        (found / f"{name}.html").write_text(render(record()), encoding="utf-8")
    return found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that complains of nothing: no error, no blocked style, no request but for itself."""
    page = browser.new_page(viewport={"width": DESKTOP_PX, "height": 1_000}, color_scheme="light")
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.resource_type != "document" else None)
    yield page
    page.close()
    assert complaints == []


def opened(page: Page, folder: Path, name: str = "full") -> Page:
    page.goto((folder / f"{name}.html").as_uri())
    return page


def background(page: Page) -> str:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


def serious(page: Page, options: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Serious and critical violations that axe-core finds, rule to places."""
    found = Axe().run(page, options={"resultTypes": ["violations"]} | (options or {})).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return {one["id"]: [str(node["target"]) for node in one["nodes"]] for one in grave}


@pytest.mark.parametrize("name", ["full", "refused"])
def test_axe_finds_nothing_serious(page: Page, folder: Path, name: str) -> None:
    opened(page, folder, name)
    # What is folded away is read as well.
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert serious(page) == {}


def test_axe_finds_enough_contrast_in_the_dark(page: Page, folder: Path) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, folder)
    assert serious(page, {"runOnly": ["color-contrast"]}) == {}


def test_axe_would_find_a_fault(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<p style='color:#bbb;background:#fff'>faint</p><img src='data:,'>")
    assert {"color-contrast", "image-alt"} <= set(serious(page))
    page.close()


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("width", [320, PHONE_PX, DESKTOP_PX])
def test_no_page_scrolls_sideways(page: Page, folder: Path, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, folder, name)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_verdict_and_the_ladder_are_seen_first(page: Page, folder: Path) -> None:
    opened(page, folder)
    expect(page.get_by_text(full().verdict.sentence)).to_be_in_viewport()
    expect(page.get_by_role("heading", name="Can these numbers be trusted?")).to_be_in_viewport()
    assert page.locator("text=Guardrails").first.evaluate("one => one.getBoundingClientRect().top") > 0


def test_a_reader_chooses_the_colours_without_a_script(page: Page, folder: Path) -> None:
    opened(page, folder)
    assert background(page) == LIGHT
    page.get_by_label("dark").check()
    assert background(page) == DARK
    page.emulate_media(color_scheme="dark")
    page.get_by_label("as the system").check()
    assert background(page) == DARK
    page.get_by_label("light").check()
    assert background(page) == LIGHT


@pytest.mark.parametrize(("around", "shown"), [("dark", DARK), ("light", LIGHT)])
def test_a_frame_takes_the_theme_of_the_page_around_it(page: Page, folder: Path, around: str, shown: str) -> None:
    page.emulate_media(color_scheme="light" if around == "dark" else "dark")
    opened(page, folder)
    page.evaluate("theme => document.documentElement.dataset.theme = theme", around)
    assert background(page) == shown
    # The reader's own choice goes before it.
    other = "light" if around == "dark" else "dark"
    page.get_by_label(other).check()
    assert background(page) == {"light": LIGHT, "dark": DARK}[other]


def test_it_is_printed_light_and_whole(page: Page, folder: Path, tmp_path: Path) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, folder)
    page.get_by_label("dark").check()
    page.emulate_media(media="print", color_scheme="dark")
    assert background(page) == "rgb(255, 255, 255)"
    expect(page.get_by_label("dark")).to_be_hidden()
    # Folded tables are on paper too: nobody can open them there.
    folded = page.locator("details table").first
    assert folded.evaluate("one => one.getBoundingClientRect().height") > 0
    pdf = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 50_000


def test_it_works_in_a_sandboxed_frame(browser: Browser, folder: Path) -> None:
    """As Airflow's tab shows it: another document around it, scripts forbidden."""
    handler = partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        frame = "<iframe sandbox='' src='full.html' style='width:100%;height:900px'></iframe>"
        (folder / "around.html").write_text(f"<!DOCTYPE html><title>around</title>{frame}", encoding="utf-8")
        page = browser.new_page(viewport={"width": 1_000, "height": 950})
        page.goto(f"http://127.0.0.1:{server.server_port}/around.html")
        inside = page.frame_locator("iframe")
        expect(inside.get_by_text(full().verdict.sentence)).to_be_visible()
        inside.get_by_label("dark").check()
        assert inside.locator("body").evaluate("one => getComputedStyle(one).backgroundColor") == DARK
        inside.get_by_role("link", name="Sensitivity", exact=True).click()
        expect(inside.get_by_role("heading", name="Sensitivity", exact=True)).to_be_in_viewport()
        page.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server without a log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_keyboard_reaches_verdict_contents_and_tables(page: Page, folder: Path) -> None:
    opened(page, folder)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the verdict")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    table = page.locator("[aria-labelledby=t-primary]")
    table.focus()
    expect(table).to_be_focused()


def test_landmarks_and_drawings_have_names(page: Page, folder: Path) -> None:
    opened(page, folder)
    for role, name in (("main", None), ("banner", None), ("contentinfo", None), ("navigation", "Contents")):
        expect(page.get_by_role(role, name=name).first).to_be_attached()  # type: ignore[arg-type]
    drawings = page.get_by_role("img")
    assert drawings.count() > 5
    names = [one.get_attribute("aria-labelledby") for one in drawings.all()]
    assert all(names)
    assert len(set(names)) == len(names)
