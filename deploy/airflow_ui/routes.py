"""The pages: list, calendar of gates, a report, a run's report, a comparison."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from deploy.airflow_ui.app import NOT_FOUND, REPORT_POLICY, PageError, page
from deploy.airflow_ui.catalogue import DAG_PREFIX, Catalogue, Row
from deploy.airflow_ui.comparing import change, lift_rows, plain
from deploy.airflow_ui.drawing import Spark, bars, spark
from deploy.airflow_ui.listing import VERDICTS, Query, select
from deploy.airflow_ui.run_pages import report_of

router = APIRouter()

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# Of the sparkline on a pipeline's card.
SPARK_DAYS = 60
# Dataset and file name of the report itself.
PAGE = ("report", "report.html")


@dataclass(frozen=True)
class Visit:
    """One request of a signed-in user.

    Attributes:
        catalogue: The lake.
        dag_ids: DAGs of ours that the user may read.
    """

    catalogue: Catalogue
    dag_ids: frozenset[str]

    def require(self, dag_id: str) -> None:
        """Refuse a DAG that is not ours (404) or that the user may not read (403)."""
        if dag_id not in self.dag_ids:
            if not dag_id.startswith(DAG_PREFIX):
                raise PageError(
                    404, "This DAG writes no A/B reports", f"Only DAGs whose name begins with {DAG_PREFIX} do."
                )
            raise PageError(
                403,
                "No permission",
                "Reports are open to those who may read their DAG. Either you may not, or there is no such DAG.",
                "Whoever administers this Airflow gives the right.",
            )

    def rows(self, dag_id: str, day: str) -> list[Row]:
        """Reports of one day, the one to show first; PageError when there is none to be seen."""
        self.require(dag_id)
        found = self.catalogue.of_day(dag_id, day_of(day))
        if not found:
            newest = self.catalogue.rows([dag_id])
            known = f"The newest day with a report is {newest[0].day}." if newest else "No day has one yet."
            raise PageError(
                404,
                f"No report of {dag_id.removeprefix(DAG_PREFIX)} for {day}",
                "The day was not run, or its run has not come to the report.",
                known,
            )
        return found

    def row(self, dag_id: str, day: str, settings: str | None) -> Row:
        """One report; PageError when there is none to be seen, or it can not be read."""
        rows = self.rows(dag_id, day)
        row = next((one for one in rows if settings in (None, "", one.settings)), None)
        if row is None:
            raise PageError(
                404, f"No report for {day} under these settings", "There is one under other settings; see the list."
            )
        if row.entry.summary is None:
            title = "No report yet" if row.decision == "no report" else "The report can not be read"
            raise PageError(404 if row.decision == "no report" else 422, title, row.sentence)
        return row


async def signed_in(request: Request) -> Any:
    """The user; raises when there is none."""
    return await request.app.state.access.user(request)


def visit(request: Request, user: Annotated[Any, Depends(signed_in)]) -> Visit:
    """What a signed-in user may see. In a worker thread, since it asks Airflow's database and the lake."""
    catalogue: Catalogue = request.app.state.catalogue
    readable = request.app.state.access.readable(user, set(catalogue.pipelines()))
    return Visit(catalogue, frozenset(readable))


Visiting = Annotated[Visit, Depends(visit)]


def day_of(text: str) -> date:
    """A day from an address; PageError when it is none."""
    wrong = PageError(404, "There is no such day", "A day is written as in 2026-01-31.")
    # fromisoformat alone also takes 20260131 and 2026-W05-6.
    if not _DAY.fullmatch(text):
        raise wrong
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise wrong from error


@dataclass(frozen=True)
class Card:
    """The newest day of one pipeline, and the lifts before it."""

    row: Row
    spark: Spark | None
    label: str
    caption: str


@router.get("/")
def reports(request: Request, seen: Visiting) -> Response:
    """The list of days."""
    query = Query.parse(dict(request.query_params))
    rows = seen.catalogue.rows(seen.dag_ids)
    listing = select(rows, query)
    shown = sorted(seen.dag_ids) if query.dag not in seen.dag_ids else [query.dag]
    months = [seen.catalogue.gates.month(one, one.removeprefix(DAG_PREFIX), None) for one in shown]
    nothing = "No day has these words and this verdict." if rows else "No day has a report yet: run one first."
    if not seen.dag_ids:
        nothing = "No DAG with A/B reports is open to you, or there is none yet."
    return page(
        request,
        "list.html",
        title="Reports",
        here="list",
        query=query,
        listing=listing,
        bars=bars([row.lift for row in listing.rows]),
        # Whoever searches does not look for the newest.
        newest=cards(rows, shown) if listing.page == 1 and not query.text and not query.verdict else [],
        pipelines=[(one, one.removeprefix(DAG_PREFIX)) for one in sorted(seen.dag_ids)],
        verdicts=VERDICTS,
        months=[month for month in months if month],
        nothing=nothing,
    )


def cards(rows: list[Row], dag_ids: Iterable[str]) -> list[Card]:
    """The newest report of each pipeline under its present settings.

    Args:
        rows: Newest first.
        dag_ids: Which DAGs.

    Returns:
        One card per pipeline that has a readable report.
    """
    found = []
    for dag_id in dag_ids:
        mine = [row for row in rows if row.dag_id == dag_id and row.entry.summary]
        row = next((one for one in mine if one.current), mine[0] if mine else None)
        if row is None:
            continue
        earlier = [one for one in mine if one.settings == row.settings and one.lift and one.lift.value is not None]
        days = earlier[:SPARK_DAYS][::-1]
        picture = spark([one.lift for one in days if one.lift])
        caption = f"Lift of app time, {days[0].day} to {days[-1].day}" if days else ""
        found.append(Card(row, picture, f"{caption}: {len(days)} days, the last one {row.sentence}", caption))
    return found


@router.get("/gates")
def gates(request: Request, seen: Visiting, dag: str = "", month: str = "") -> Response:
    """The calendar of gates of one pipeline, or of all."""
    if dag:
        seen.require(dag)
    months = [
        seen.catalogue.gates.month(one, one.removeprefix(DAG_PREFIX), month or None)
        for one in ([dag] if dag else sorted(seen.dag_ids))
    ]
    nothing = "No day has been validated yet."
    found = [one for one in months if one]
    return page(request, "gates.html", title="Gates", here="gates", months=found, nothing=nothing)


@router.get("/dags/{dag_id}/days/{day}")
def report(request: Request, seen: Visiting, dag_id: str, day: str, settings: str = "") -> Response:
    """One report, in a frame under a bar of links."""
    return framed(request, seen, seen.row(dag_id, day, settings))


@router.get("/files/{dag_id}/{settings}/{dataset}/ds={day}/{name}")
def document(seen: Visiting, dag_id: str, settings: str, dataset: str, day: str, name: str) -> Response:
    """The report itself, or a page that it links to. Addresses are like paths in the lake, so that its links work."""
    row = seen.row(dag_id, day, settings)
    text = seen.catalogue.page(row) if (dataset, name) == PAGE else seen.catalogue.document(row, dataset, name)
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/dags/{dag_id}/days/{day}/experiment.json")
def record(seen: Visiting, dag_id: str, day: str, settings: str = "") -> Response:
    """Every number of the report."""
    row = seen.row(dag_id, day, settings)
    name = f"experiment-{row.pipeline}-{row.day}-{row.settings}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(seen.catalogue.record(row), media_type="application/json", headers=headers)


@router.get("/dags/{dag_id}/days/{day}/gates")
def day_gates(request: Request, seen: Visiting, dag_id: str, day: str) -> Response:
    """What a day was checked for, and what did not hold."""
    seen.require(dag_id)
    pipeline, one = dag_id.removeprefix(DAG_PREFIX), day_of(day)
    found = seen.catalogue.gates.day(pipeline, one)
    if not found:
        raise PageError(404, f"{day} was not validated", "Its run has not come so far, or there was none.")
    return page(
        request, "day_gates.html", title=f"Gates of {day}", dag_id=dag_id, pipeline=pipeline, day=one, gates=found
    )


@router.get("/dags/{dag_id}/runs/{run_id}")
def run_report(request: Request, seen: Visiting, dag_id: str, run_id: str) -> Response:
    """The report of a DAG run: the tab in Airflow."""
    seen.require(dag_id)
    run = request.app.state.runs.find(dag_id, run_id)
    if run is None:
        raise PageError(404, "There is no such run", f"Airflow knows no run of {dag_id} by that name.")
    row, note = report_of(seen.catalogue, run)
    return framed(request, seen, seen.row(dag_id, str(row.day), row.settings), note)


@router.get("/compare")
def compare(request: Request, seen: Visiting) -> Response:
    """Two reports side by side."""
    keys = list(dict.fromkeys(request.query_params.getlist("day")))
    if len(keys) != 2:
        raise PageError(400, "Choose two days", f"{len(keys)} chosen: tick exactly two rows of the list, then compare.")
    rows = []
    for key in keys:
        parts = key.split("~")
        if len(parts) != 3:
            raise NOT_FOUND
        rows.append(seen.row(*parts))
    first, second = sorted(rows, key=lambda row: (row.day, row.written))
    found = seen.catalogue.compare(first, second)
    title = f"{first.day} and {second.day}"
    lifts = lift_rows(found)
    return page(
        request,
        "compare.html",
        title=title,
        first=first,
        second=second,
        found=found,
        lifts=lifts,
        plain=plain,
        change=change,
    )


def framed(request: Request, seen: Visit, row: Row, note: str = "") -> Response:
    """A report in a frame, with links to its neighbours under the same settings."""
    series = [one for one in seen.catalogue.rows([row.dag_id]) if one.settings == row.settings and one.entry.summary]
    place = next(index for index, one in enumerate(series) if one.day == row.day)
    earlier = series[place + 1] if place + 1 < len(series) else None
    later = series[place - 1] if place else None
    where = f"/dags/{row.dag_id}/days/{row.day}"
    return page(
        request,
        "report.html",
        title=f"{row.pipeline}, {row.day}",
        row=row,
        note=note,
        earlier=earlier,
        later=later,
        page=f"/files/{row.dag_id}/{row.settings}/{PAGE[0]}/ds={row.day}/{PAGE[1]}",
        data=f"{where}/experiment.json?settings={row.settings}",
        compare=urlencode([("day", earlier.key), ("day", row.key)]) if earlier else "",
    )
