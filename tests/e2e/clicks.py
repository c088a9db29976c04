"""What a person does in Airflow's UI, as clicks of a real browser."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect, sync_playwright

from tests.e2e.conftest import DAG_ID, Running

PATIENCE_MS = 60_000
PHONE_PX, DESKTOP_PX = 400, 1_280

Reprocess = Literal["Missing Runs", "Missing and Errored Runs", "All Runs"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or whatever is installed under one of its names."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "no Chromium on the PATH; 'make test' installs it where it may, else: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def sign_in(page: Page, running: Running, user: str = "admin", at: str = f"/dags/{DAG_ID}") -> None:
    """As a person who follows a link to a page of Airflow and is asked who they are."""
    password = json.loads(running.stack.password_file.read_text(encoding="utf-8"))[user]
    page.goto(f"{running.stack.url}{at}", timeout=PATIENCE_MS)
    page.locator("input[name=username]").fill(user, timeout=PATIENCE_MS)
    page.locator("input[name=password]").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{running.stack.url}{at}*", timeout=PATIENCE_MS)


def pages_of(page: Page) -> FrameLocator:
    """The frame in which Airflow shows the reports' pages."""
    return page.frame_locator('iframe[title^="A/B report"]')


def framed_report(page: Page) -> FrameLocator:
    """The report itself, in its frame inside the frame of the pages."""
    return pages_of(page).frame_locator("iframe.report")


def backfill(page: Page, start: datetime, reprocess: Reprocess) -> None:
    """Create a backfill of one day, from the DAG's page on.

    Args:
        page: Signed in, anywhere.
        start: The moment at which the day's interval starts.
        reprocess: Which runs that are there already run again.
    """
    page.get_by_role("button", name="Trigger").first.click(timeout=PATIENCE_MS)
    # Dialogs have no accessible name here: they are found by their text.
    page.get_by_text("Backfill", exact=True).first.click()
    dialog = page.get_by_role("dialog").filter(has_text="Date Range")
    for _ in ("From", "To"):
        # A field that is filled shows its date, so the first empty one is the next.
        dialog.get_by_text("Select date and time").first.click()
        _type_moment(page, start)
    dialog.get_by_text(reprocess, exact=True).click()
    dialog.get_by_role("button", name="Run Backfill").click()
    expect(dialog).to_be_hidden(timeout=PATIENCE_MS)


def _type_moment(page: Page, moment: datetime) -> None:
    """Into the calendar that a click on a date field opens; it shows UTC unless a person has chosen a zone."""
    calendar = page.get_by_role("dialog").filter(has=page.get_by_placeholder("YYYY/MM/DD"))
    for placeholder, text in (("YYYY/MM/DD", f"{moment:%Y/%m/%d}"), ("HH:mm", f"{moment:%H:%M}")):
        field = calendar.get_by_placeholder(placeholder)
        field.fill(text)
        field.press("Enter")
    # Pressed in the calendar, so that it closes and not the dialog under it.
    calendar.get_by_placeholder("HH:mm").press("Escape")
    expect(calendar).to_be_hidden(timeout=PATIENCE_MS)


def serious(page: Page, context: str | None = None) -> dict[str, list[str]]:
    """Serious and critical accessibility violations that axe finds, rule to the places; the frames included."""
    found = Axe().run(page, context=context).response["violations"]
    return {
        one["id"]: [str(node["target"]) for node in one["nodes"]]
        for one in found
        if one["impact"] in ("serious", "critical")
    }


def width_of(page: Page | Any) -> int:
    """How wide the content of a page or frame is, in pixels."""
    wide: int = page.evaluate("document.documentElement.scrollWidth")
    return wide


def choose_theme(page: Page, name: Literal["Light Mode", "Dark Mode"]) -> None:
    """Switch Airflow's theme in its user menu."""
    page.get_by_role("button", name="User").click(timeout=PATIENCE_MS)
    page.get_by_role("menuitem", name="Appearance").click()
    page.get_by_role("menuitemradio", name=name).click()


def screenshot(page: Page, folder: Path, name: str) -> None:
    """Keep a picture for review and the documents; animations are at their end in it."""
    page.screenshot(path=folder / f"{name}.png", animations="disabled")


def day_link(frame: FrameLocator, day: date) -> Locator:
    """The link of a day in the list."""
    return frame.locator("table.list").get_by_role("link", name=str(day))
