"""How long the list of reports takes in Airflow's UI when a lake holds many of them.

Reports of a made-up experiment of usual size are written into a temporary lake, one per day, and the pages are asked
through their own application in this process, without Airflow's login. Measured are the first answer of a fresh server
process (every summary is read, after the imports), answers while nothing changes (every one lists the lake anew), and
an answer after one more report. For comparison the same machine reads every ``experiment.json`` of the lake, which is
what a list without summaries and without an index would do at every request.

Claims: ``reports.list_s``, ``reports.first_list_s``, ``reports.after_a_day_s``, ``reports.index_gain``.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, Record, record
from components.config import Settings
from components.lake import Lake
from components.reports import list_reports, read_record
from deploy.airflow_ui.app import create_app
from deploy.airflow_ui.catalogue import Catalogue
from deploy.airflow_ui.runs import Run
from simulator.experiment import Arm, Estimate, Experiment, Lineage, MetricResult, Quality, Rung, Verdict
from simulator.metrics import METRICS, SEGMENTS
from simulator.report.summary import summarise
from simulator.result import Unit

TARGET_S = 1.0
FIRST = date(2023, 1, 1)
PIPELINE, SOURCE, SETTINGS = "bench", "world-00000000", "0123456789ab"


class _Everybody:
    """Lets everybody read everything: the login is Airflow's, and not what is measured."""

    async def user(self, request: Any) -> Any:
        return "reader"

    def readable(self, user: Any, dag_ids: AbstractSet[str]) -> set[str]:
        return set(dag_ids)


class _NoRuns:
    def find(self, dag_id: str, run_id: str) -> Run | None:
        return None


def run(
    reports: int = 1_000,
    repeats: int = 20,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Record:
    """Measure.

    Args:
        reports: How many days have one.
        repeats: Repetitions of the answers while nothing changes.
        notify: Called with (done, total, what).

    Returns:
        Claims, and one row per answer.
    """
    with tempfile.TemporaryDirectory(prefix="mfh-reports-") as folder:
        settings = Settings(home=Path(folder), lake="", lake_endpoint="", pipelines="")
        lake = Lake.open(settings).scope(SOURCE, PIPELINE, SETTINGS)
        size = 0
        for index in range(reports):
            notify(index, reports, "reports written")
            size = _write(lake, FIRST + timedelta(days=index), index)
        rows, bytes_of_page = _answers(settings, lake, reports, repeats)
        notify(reports, reports, "records read for comparison")
        whole = Lake.open(settings)
        plain = _timed("every record read", lambda: [read_record(whole, one) for one in list_reports(whole, PIPELINE)])
        rows.append(plain)
    return _record(reports, repeats, rows, {"record_bytes": size, "page_bytes": bytes_of_page})


def _answers(settings: Settings, lake: Lake, reports: int, repeats: int) -> tuple[list[dict[str, Any]], int]:
    from fastapi.testclient import TestClient

    # Every answer lists the lake: no listing is young enough to be taken as it is.
    client = TestClient(create_app(_Everybody(), _NoRuns(), Catalogue(settings, fresh_s=0)))

    def ask(path: str) -> int:
        answer = client.get(path)
        if answer.status_code != 200 or f"{reports} days" not in answer.text:
            raise RuntimeError(f"{path} answered {answer.status_code} without {reports} days")
        return len(answer.content)

    rows = [_timed("first", lambda: ask("/"))]
    bytes_of_page = ask("/")
    for index in range(repeats):
        path = ("/", "/?sort=lift", "/?q=2023", "/?page=3")[index % 4]
        rows.append(_timed("unchanged", partial(_opened, client, path)))
    _write(lake, FIRST + timedelta(days=reports), reports)
    reports += 1
    rows.append(_timed("after one more", lambda: ask("/")))
    return rows, bytes_of_page


def _opened(client: Any, path: str) -> None:
    client.get(path).raise_for_status()


def _timed(what: str, work: Callable[[], Any]) -> dict[str, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"what": what, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def _record(reports: int, repeats: int, rows: list[dict[str, Any]], sizes: dict[str, int]) -> Record:
    seconds = {what: [row["seconds"] for row in rows if row["what"] == what] for what in {row["what"] for row in rows}}
    usual = seconds["unchanged"]
    (first,), (after,), (plain,) = seconds["first"], seconds["after one more"], seconds["every record read"]
    middle = statistics.median(usual)
    target = f"< {TARGET_S:g} s"
    how = f"{reports} reports on a local folder, pages of 50 rows, through the application in one process"
    claims = [
        Claim(
            "reports.list_s",
            middle,
            "s",
            min(usual),
            max(usual),
            target,
            max(usual) < TARGET_S,
            f"{how}; median of {repeats} answers, each lists the lake; interval, and what holds: fastest and slowest",
        ),
        Claim("reports.first_list_s", first, "s", None, None, target, first < TARGET_S, f"{how}; nothing read before"),
        Claim("reports.after_a_day_s", after, "s", None, None, target, after < TARGET_S, f"{how}; one report is new"),
        Claim(
            "reports.index_gain",
            plain / middle,
            "x",
            None,
            None,
            "",
            None,
            "time to read every experiment.json, over the median answer; both in this run",
        ),
    ]
    return record({"reports": reports, "repeats": repeats} | sizes, claims, rows)


def _write(lake: Lake, day: date, index: int) -> int:
    made = experiment(day, index)
    text = made.model_dump_json(indent=1).encode()
    with lake.write("report", day, SETTINGS) as writer:
        writer.text("day.html", "a page is not read for the list")
        writer.aside["report.html"] = b"a page is not read for the list"
        writer.aside["experiment.json"] = text
        writer.aside["summary.json"] = summarise(made).model_dump_json(indent=1).encode()
    return len(text)


def experiment(day: date, index: int) -> Experiment:
    """A made-up record of usual size.

    Args:
        day: Its day.
        index: Shifts its numbers, so that no two days are alike.

    Returns:
        Every metric in every segment, and offline quality of five tasks; no section that only some days have.
    """

    def estimate(value: float, unit: Unit) -> Estimate:
        return Estimate(value=value, low=value - 3.1, high=value + 3.1, se=1.58, p_value=0.04, unit=unit)

    lift = 8.0 * ((index * 37 % 100) / 100 - 0.4)
    metrics = tuple(
        MetricResult(
            name=one.name,
            title=one.title,
            role=one.role,
            segment=segment,
            higher_is_better=one.higher_is_better,
            users=1_000 + index,
            baseline=estimate(100.0, one.unit),
            treatment=estimate(100.0 + lift, one.unit),
            difference=estimate(lift, "pp" if one.unit == "share" else one.unit),
            relative=estimate(lift, "percent"),
        )
        for one in METRICS
        for segment in SEGMENTS
    )
    decision = "ship" if lift > 3.1 else "hold" if lift < -3.1 else "not enough evidence"
    sentence = f"New users: app time {lift:+.1f} % [{lift - 3.1:.1f}, {lift + 3.1:.1f}]: {decision}"
    arms = tuple(
        Arm(
            role=role,
            model=model,
            kind=model,
            parameters=1_000_000,
            bundle="0" * 64,
            first_day=str(day - timedelta(days=8)),
            last_day=str(day - timedelta(days=2)),
            rows=400_000,
        )
        for role, model in (("treatment", "mfh"), ("baseline", "ple"))
    )
    quality = tuple(
        Quality(arm=arm.role, task=f"task_{task}", group=segment, metric="auc", value=0.7 + 0.001 * task, rows=9_000)
        for arm in arms
        for task in range(5)
        for segment in SEGMENTS
    )
    return Experiment(
        day=str(day),
        holdout_day=str(day - timedelta(days=1)),
        return_day=str(day),
        confidence=0.95,
        users=4_000 + index,
        sessions=9_000,
        rollouts=4,
        verdict=Verdict.model_validate({"decision": decision, "sentence": sentence, "reasons": ["made up"]}),
        trust=(Rung(name="V1 A/A", question="Does it find lifts?", state="passed", detail="made up"),),
        sample_ratio="as intended",
        metrics=metrics,
        quality=quality,
        arms=arms,
        lineage=Lineage(
            pipeline=PIPELINE,
            source=SOURCE,
            config_hash=SETTINGS,
            code_version="made up",
            inputs={f"dataset_{number}/{day}": "0" * 64 for number in range(30)},
            reproduce="made up",
        ),
    )
