"""The reports where people are: in a real Airflow, behind its login, by clicks in a real browser."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from components.report import read_experiment
from deploy.local.client import DagRun
from tests.e2e.clicks import (
    DESKTOP_PX,
    PATIENCE_MS,
    PHONE_PX,
    choose_theme,
    chromium,
    day_link,
    framed_report,
    pages_of,
    screenshot,
    serious,
    sign_in,
    width_of,
)
from tests.e2e.conftest import DAG_ID, DAYS, VIEWER, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200), pytest.mark.usefixtures("backfilled")]

NEWEST = DAYS[-1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, running: Running) -> Iterator[Page]:
    """A person who is signed in, on Airflow's home page."""
    context = browser.new_context(viewport={"width": DESKTOP_PX, "height": 860})
    page = context.new_page()
    sign_in(page, running, at="/")
    yield page
    context.close()


@pytest.fixture
def verdict(running: Running) -> str:
    """What the newest report must say."""
    return read_experiment(running.context, NEWEST).verdict.sentence


def own(running: Running) -> tuple[str, ...]:
    """Addresses of every kind of page, below the server's."""
    newest, earlier = (f"{DAG_ID}~{day}~{running.pipeline.config_hash}" for day in (NEWEST, DAYS[0]))
    return (
        "/mfh/",
        "/mfh/gates",
        f"/mfh/dags/{DAG_ID}/days/{NEWEST}",
        f"/mfh/dags/{DAG_ID}/days/{NEWEST}/gates",
        f"/mfh/compare?day={earlier}&day={newest}",
        f"/mfh/dags/{DAG_ID}/days/1999-01-01",
    )


def report_address(running: Running) -> str:
    """Address of the newest report alone, below the server's."""
    return f"/mfh/files/{DAG_ID}/{running.pipeline.config_hash}/report/ds={NEWEST}/report.html"


def test_the_newest_verdict_is_one_click_from_home_and_its_report_two(
    page: Page, verdict: str, screenshots: Path
) -> None:
    page.get_by_role("link", name="A/B reports").click(timeout=PATIENCE_MS)
    card = pages_of(page).locator(".card").first
    expect(card).to_contain_text(verdict, timeout=PATIENCE_MS)
    expect(card).to_be_in_viewport()
    screenshot(page, screenshots, "ab-reports")
    card.get_by_role("link").click()
    expect(framed_report(page).get_by_text(verdict).first).to_be_in_viewport(timeout=PATIENCE_MS)
    screenshot(page, screenshots, "ab-report")


def test_a_runs_tab_shows_the_report_of_its_day(
    page: Page, running: Running, backfilled: dict[date, DagRun], verdict: str, screenshots: Path
) -> None:
    run = backfilled[NEWEST]
    page.goto(f"{running.stack.url}/dags/{DAG_ID}", timeout=PATIENCE_MS)
    page.locator(f'a[href="/dags/{DAG_ID}/runs/{run.run_id}/"]').first.click(timeout=PATIENCE_MS)
    page.get_by_role("link", name="A/B report", exact=True).last.click(timeout=PATIENCE_MS)
    expect(framed_report(page).get_by_text(verdict).first).to_be_visible(timeout=PATIENCE_MS)
    expect(framed_report(page).locator("body")).to_contain_text(str(NEWEST))
    screenshot(page, screenshots, "ab-report-tab")


def test_the_report_task_has_a_link_to_it(
    page: Page, running: Running, backfilled: dict[date, DagRun], verdict: str
) -> None:
    run = backfilled[NEWEST]
    page.goto(f"{running.stack.url}/dags/{DAG_ID}/runs/{quote(run.run_id)}/tasks/report/details", timeout=PATIENCE_MS)
    page.locator('a[href$="/plugin/ab-report"]').click(timeout=PATIENCE_MS)
    expect(framed_report(page).get_by_text(verdict).first).to_be_visible(timeout=PATIENCE_MS)


def test_the_list_is_sorted_and_searched_by_clicks(page: Page) -> None:
    page.get_by_role("link", name="A/B reports").click(timeout=PATIENCE_MS)
    frame = pages_of(page)
    days = frame.locator("table.list tbody th a")
    newest_first = [str(day) for day in reversed(DAYS)]
    expect(days).to_have_text(newest_first, timeout=PATIENCE_MS)
    frame.get_by_role("link", name=re.compile("^Day")).click()
    expect(days).to_have_text(newest_first[::-1], timeout=PATIENCE_MS)
    expect(frame.get_by_role("columnheader", name=re.compile("^Day"))).to_have_attribute("aria-sort", "ascending")
    frame.get_by_label("Search", exact=True).fill(str(DAYS[0]))
    frame.get_by_role("button", name="Search").click()
    expect(days).to_have_text([str(DAYS[0])], timeout=PATIENCE_MS)


def test_two_days_are_compared_by_clicks(page: Page, running: Running, screenshots: Path) -> None:
    page.get_by_role("link", name="A/B reports").click(timeout=PATIENCE_MS)
    frame = pages_of(page)
    for day in (NEWEST, DAYS[0]):
        frame.get_by_label(f"Compare {running.pipeline.name}, {day}").check(timeout=PATIENCE_MS)
    frame.get_by_role("button", name="Compare two days").click()
    expect(frame.get_by_role("heading", level=1)).to_have_text(f"{DAYS[0]} against {NEWEST}", timeout=PATIENCE_MS)
    for day in (DAYS[0], NEWEST):
        sentence = read_experiment(running.context, day).verdict.sentence
        expect(frame.locator(".sides").get_by_text(sentence)).to_be_visible()
    expect(frame.get_by_role("heading", name="Data")).to_be_visible()
    screenshot(page, screenshots, "ab-compare")
    frame.get_by_role("link", name=f"{running.pipeline.name}, {DAYS[0]}").click()
    expect(framed_report(page).locator("body")).to_contain_text(str(DAYS[0]), timeout=PATIENCE_MS)


def test_pages_and_report_follow_airflows_theme(page: Page, running: Running, screenshots: Path) -> None:
    page.get_by_role("link", name="A/B reports").click(timeout=PATIENCE_MS)
    day_link(pages_of(page), NEWEST).click(timeout=PATIENCE_MS)
    bodies = (pages_of(page).locator("body"), framed_report(page).locator("body"))
    expect(bodies[1]).to_contain_text(str(NEWEST), timeout=PATIENCE_MS)
    light = re.compile(r"rgb\((2\d\d, ){2}2\d\d\)")
    dark = re.compile(r"rgb\((\d{1,2}, ){2}\d{1,2}\)")
    for name, colour in (("Dark Mode", dark), ("Light Mode", light)):
        choose_theme(page, name)
        for body in bodies:
            expect(body).to_have_css("background-color", colour, timeout=PATIENCE_MS)
        if name == "Dark Mode":
            screenshot(page, screenshots, "ab-report-dark")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_accessibility_violation(page: Page, running: Running, theme: str) -> None:
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    found = {}
    # Not in the report alone, which lets no script run, not even axe: its own tests look at it without this policy.
    for address in own(running):
        page.goto(f"{running.stack.url}{address}", timeout=PATIENCE_MS)
        if wrong := serious(page):
            found[address] = wrong
    assert found == {}


@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
def test_no_page_scrolls_sideways_or_complains(page: Page, running: Running, screenshots: Path, width: int) -> None:
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_viewport_size({"width": width, "height": 860})
    wide = {}
    for address in (*own(running), report_address(running)):
        page.goto(f"{running.stack.url}{address}", timeout=PATIENCE_MS)
        wide[address] = width_of(page)
        if width == PHONE_PX and address == "/mfh/":
            screenshot(page, screenshots, "ab-reports-phone")
    assert {address: one for address, one in wide.items() if one > width} == {}
    assert complaints == []


def test_the_report_prints(page: Page, running: Running, screenshots: Path) -> None:
    page.goto(f"{running.stack.url}{report_address(running)}", timeout=PATIENCE_MS)
    paper = page.pdf(path=screenshots / "report.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 2


def test_a_viewer_reads_everything(browser: Browser, running: Running, verdict: str) -> None:
    context = browser.new_context(viewport={"width": DESKTOP_PX, "height": 860})
    page = context.new_page()
    sign_in(page, running, VIEWER, at="/")
    page.get_by_role("link", name="A/B reports").click(timeout=PATIENCE_MS)
    day_link(pages_of(page), NEWEST).click(timeout=PATIENCE_MS)
    expect(framed_report(page).get_by_text(verdict).first).to_be_visible(timeout=PATIENCE_MS)
    context.close()


def test_nobody_reads_anything_without_signing_in(browser: Browser, running: Running, verdict: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    for address in (*own(running), report_address(running)):
        answer = page.goto(f"{running.stack.url}{address}", timeout=PATIENCE_MS)
        assert answer is not None
        assert answer.status == 401, address
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to see the reports")
        assert verdict not in page.content()
    # The button leads to Airflow's own login.
    page.get_by_role("link", name="Sign in").click()
    expect(page.locator("input[name=username]")).to_be_visible(timeout=PATIENCE_MS)
    context.close()


def test_a_forged_session_is_none(running: Running) -> None:
    for headers in ({"Cookie": "_token=forged"}, {"Authorization": "Bearer a.b.c"}):
        answer = httpx.get(f"{running.stack.url}/mfh/", headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 401


def test_airflow_has_loaded_the_plugin_once_and_without_a_complaint(running: Running) -> None:
    (found,) = running.client.call("GET", "plugins")["plugins"]
    assert found["name"] == "mfh_reports"
    assert {view["destination"] for view in found["external_views"]} == {"nav", "dag", "dag_run"}
    assert running.client.call("GET", "plugins/importErrors")["import_errors"] == []
