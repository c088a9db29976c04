"""The pages over a lake written by hand, asked through a client; who asks is said by a header instead of Airflow."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from components.config import Settings, load_pipeline
from components.context import Context
from components.day_checks import day_checks
from components.report import report, run_of
from deploy.airflow_ui.access import NotSignedInError
from deploy.airflow_ui.app import create_app
from deploy.airflow_ui.catalogue import Catalogue
from deploy.airflow_ui.runs import Run
from simulator.experiment import Experiment
from simulator.report.summary import summarise
from tests.small_lake import FIRST, ZONE, settings_at
from tests.test_series import record, result

DAG, OTHER = "mfh_daily_small", "mfh_daily_secret"


class Doorkeeper:
    """Knows two people: ``ann`` may read everything, ``bob`` all but the pipeline ``secret``."""

    async def user(self, request: Request) -> Any:
        if name := request.headers.get("x-user"):
            return name
        raise NotSignedInError(f"/auth/login?next={request.url.path}")

    def readable(self, user: Any, dag_ids: AbstractSet[str]) -> set[str]:
        return set(dag_ids) - ({OTHER} if user == "bob" else set())


class Timetable(dict[str, Run]):
    """Runs by id."""

    def find(self, dag_id: str, run_id: str) -> Run | None:
        run = self.get(run_id)
        return run if run and run.dag_id == dag_id else None


class Site:
    """The pages below ``/airflow/mfh``, with what lies behind them."""

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        self.settings = settings or settings_at(home)
        self.runs = Timetable()
        self.catalogue = Catalogue(self.settings, fresh_s=0)
        app = create_app(Doorkeeper(), self.runs, self.catalogue)
        # As Airflow mounts it, with a base URL that has a path of its own.
        outer = Starlette(routes=[Mount("/airflow", Starlette(routes=[Mount("/mfh", app)]))])
        self.client = TestClient(outer, base_url="http://airflow.test", raise_server_exceptions=False)

    def get(self, path: str, user: str | None = "ann") -> Any:
        return self.client.get(f"/airflow/mfh{path}", headers={"x-user": user} if user else {})

    def context(self, name: str = "small", **changes: Any) -> Context:
        """A pipeline by its file, which is written if need be, under changed settings if any are given."""
        feed = {"kind": "python", "factory": "tests.small_lake:Ended", "timezone": ZONE.key, "first_day": FIRST}
        file = self.settings.pipelines_dir / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({"name": name, "feed": feed, "train": {"window_days": 2}}))
        return Context(load_pipeline(file).override(changes), self.settings, run={"run_id": "a run", "try": 1})

    def report(self, context: Context, day: date, lift: float | None, *, drawn: bool = False, **changes: Any) -> Path:
        """One day's report, its page by the report's own step if ``drawn``; gives the folder that it lies in."""
        seconds = result("app_time", lift)
        seconds = seconds.model_copy(update={"difference": seconds.difference.model_copy(update={"unit": "s"})})
        experiment = record(day, seconds, result("return", None if lift is None else lift / 10))
        lineage = experiment.lineage.model_copy(
            update={"pipeline": context.pipeline.name, "config_hash": context.pipeline.config_hash}
        )
        experiment = experiment.model_copy(update={"lineage": lineage} | changes)
        with context.runs.write("experiment", day) as writer:
            writer.text("experiment.json", experiment.model_dump_json())
        if drawn:
            report(context, day)
        else:
            write_report(context, day, experiment)
        return Path(context.runs.path("report", f"ds={day}"))

    def gate(self, context: Context, day: date, name: str, **broken: str) -> None:
        """A validation result with one good expectation and those broken ones: column to severity."""
        outcomes = [outcome("rows", "critical", success=True)]
        outcomes += [outcome(column, severity, success=False) for column, severity in broken.items()]
        with context.runs.write(name, day) as writer:
            writer.json("result.json", {"success": "critical" not in broken.values(), "outcomes": outcomes})
            writer.aside["data_docs.html"] = b"<html><title>Data Docs</title></html>"


def write_report(context: Context, day: date, experiment: Experiment) -> None:
    """What the report step writes, but for the drawing of the page, which takes a second."""
    written = experiment.model_copy(update={"run": run_of(context.run), "checks": day_checks(context, day)})
    with context.runs.write("report", day) as writer:
        writer.text("day.html", "the day")
        writer.aside["report.html"] = f"<!doctype html><title>{day}</title><p>the report of {day}".encode()
        writer.aside["experiment.json"] = written.model_dump_json().encode()
        writer.aside["summary.json"] = summarise(written).model_dump_json().encode()


def outcome(column: str, severity: str, *, success: bool) -> dict[str, Any]:
    """As ``components.validate`` records one."""
    return {
        "table": "day",
        "expectation": "expect_column_values_to_be_between",
        "column": column,
        "limits": "min_value=1",
        "observed": "[0]",
        "unexpected": 1 - success,
        "severity": severity,
        "success": success,
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path / "home")


@pytest.fixture
def text_of() -> Callable[[Any], str]:
    """What a person reads on a page: its text without markup, in one line."""
    from html.parser import HTMLParser

    def read(response: Any) -> str:
        parts: list[str] = []

        class Reader(HTMLParser):
            def handle_data(self, data: str) -> None:
                parts.append(data)

        Reader().feed(response.text)
        return " ".join(" ".join(parts).split())

    return read
