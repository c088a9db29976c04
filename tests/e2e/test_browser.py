"""What a person sees: Airflow's grid after a backfill, and the report, in a real browser."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from components.report import find_report, read_experiment
from deploy.local.client import DagRun
from tests.e2e.clicks import PATIENCE_MS, PHONE_PX, chromium, sign_in
from tests.e2e.conftest import DAG_ID, DAYS, Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200)]

DESKTOP_PX = 1_200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def newest(running: Running, backfilled: dict[date, DagRun]) -> tuple[str, str]:
    """Address of the newest report, and the verdict that it must show."""
    day = DAYS[-1]
    address = Path(find_report(running.context, day)).as_uri()
    return address, read_experiment(running.context, day).verdict.sentence


def is_green(page: Page, selector: str) -> bool:
    """Whether the first element of a selector is painted green."""
    red, green, blue = page.locator(selector).first.evaluate(
        """element => {
            const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            context.fillStyle = getComputedStyle(element).backgroundColor;
            context.fillRect(0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        }"""
    )
    return bool(green > 1.5 * red and green > 1.5 * blue)


def test_the_grid_shows_three_green_days(
    browser: Browser, running: Running, backfilled: dict[date, DagRun], screenshots: Path
) -> None:
    page = browser.new_page(viewport={"width": 1_280, "height": 800})
    sign_in(page, running)
    # The grid's panel begins too narrow for a third run; its edge moves with the arrow keys.
    page.locator("[data-panel-resize-handle-id]").first.press("ArrowRight", timeout=PATIENCE_MS)
    for run in backfilled.values():
        for task in {task.task_id for task in running.client.task_instances(DAG_ID, run.run_id)}:
            cell = f'[data-testid="grid-{run.run_id}-{task}"]'
            expect(page.locator(cell)).to_be_in_viewport(ratio=1, timeout=PATIENCE_MS)
            assert is_green(page, f'{cell} [data-testid="task-state-badge"]'), cell
        bar = f'a[href="/dags/{DAG_ID}/runs/{run.run_id}/"]'
        expect(page.locator(bar).first).to_be_in_viewport()
        assert is_green(page, f"{bar} > div"), bar
    expect(page.get_by_role("heading", name=DAG_ID)).to_be_visible()
    page.screenshot(path=screenshots / "airflow-grid.png")
    page.close()


def test_the_report_opens_from_disk_and_shows_its_verdict(
    browser: Browser, newest: tuple[str, str], screenshots: Path
) -> None:
    address, verdict = newest
    page = browser.new_page(viewport={"width": DESKTOP_PX, "height": 1_000})
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.get_by_text(verdict).first).to_be_in_viewport()
    page.screenshot(path=screenshots / "report.png")
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "the page stands alone"
    page.close()


@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
def test_the_report_does_not_scroll_sideways(browser: Browser, newest: tuple[str, str], width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(newest[0])
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    page.close()
