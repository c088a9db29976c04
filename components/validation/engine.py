"""Outcomes as a Great Expectations checkpoint, and its Data Docs as one page that is safe to open.

What is measured of a day becomes a table of one row, a column per expectation, on which Great Expectations runs: its
own engine over pandas reads every row once per expectation, and it has none for Arrow or DuckDB. Its verdict counts:
where it fails an expectation, breaks on one, or disagrees with ours, the expectation has failed.
"""

import html
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from components.validation.outcome import Outcome, shown

SEVERITY = {"fail": "critical", "warn": "warning", "refuse": "info"}

# No script runs and nothing is fetched, whatever a page quotes.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

STYLE = (
    "body{font-family:sans-serif;margin:2rem}.mfh table{border-collapse:collapse;margin:1rem 0}"
    ".mfh td,.mfh th{border:1px solid #bbb;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    ".mfh .fail{background:#fdd}.mfh .warn{background:#ffd}nav,footer,img,form{display:none}"
)


def checkpoint(name: str, title: str, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], str]:
    """Run one checkpoint.

    Args:
        name: Name of the gate.
        title: What the page is called.
        outcomes: Expectations with their observed numbers; their names are unique within a table.

    Returns:
        The outcomes with what Great Expectations says of them, and the Data Docs page.

    Raises:
        ValueError: When two expectations have the same name.
    """
    columns = [f"{one.table}.{one.expectation}" for one in outcomes]
    if len(set(columns)) < len(columns):
        twice = sorted({one for one in columns if columns.count(one) > 1})
        raise ValueError(f"expectations with the same name: {twice}")
    result, page = _run(name, columns, outcomes)
    judged = [_judged(one, answer) for one, answer in zip(outcomes, result, strict=True)]
    return judged, _safe(page, title, judged)


def _run(name: str, columns: list[str], outcomes: Sequence[Outcome]) -> tuple[list[dict[str, Any]], str]:
    with _quiet():
        import great_expectations as gx
        import great_expectations.expectations as gxe
        import pandas as pd
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

    # Python's own floats: the page can not show numpy's.
    frame = pd.DataFrame(
        {column: pd.Series([one.observed], dtype=object) for column, one in zip(columns, outcomes, strict=True)}
    )
    suite = [
        gxe.ExpectColumnMaxToBeBetween(
            column=column,
            min_value=one.low,
            max_value=one.high,
            severity=SEVERITY[one.level],
            meta={"level": one.level, "rule": one.rule, "detail": one.detail, "column": one.column},
        )
        for column, one in zip(columns, outcomes, strict=True)
    ]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("lake").add_dataframe_asset(name).add_batch_definition_whole_dataframe("day")
    )
    expectations = context.suites.add(gx.ExpectationSuite(name=name, expectations=suite))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=expectations))
    point = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition]))
    (result,) = point.run(batch_parameters={"dataframe": frame}).run_results.values()
    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=False).render(result))
    found = {one["expectation_config"]["kwargs"]["column"]: one for one in result.to_json_dict()["results"]}
    return [found[column] for column in columns], page


@contextmanager
def _quiet() -> Iterator[None]:
    """Import Great Expectations without its statistics, its log of hundreds of lines, and a grammar it never uses."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    # jsonschema, which draws in with Great Expectations, builds a grammar of IRIs where this is installed: a second
    # of every process, for a format that no schema here has. None makes its import fail, which jsonschema expects.
    grammar = "rfc3987_syntax"
    absent = grammar not in sys.modules
    if absent:
        sys.modules[grammar] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[grammar]
        for logger in [one for one in logging.root.manager.loggerDict if one.startswith("great_expectations")]:
            logging.getLogger(logger).setLevel(logging.WARNING)


def _judged(ours: Outcome, answer: dict[str, Any]) -> Outcome:
    info = answer["exception_info"] or {}
    if info.get("exception_message"):
        return replace(ours, success=False, level="fail", detail=f"it broke: {info['exception_message']}"[:300])
    if bool(answer["success"]) != ours.success:
        return replace(ours, success=False, level="fail", detail="Great Expectations disagrees with our own verdict")
    return ours


def _safe(page: str, title: str, outcomes: Sequence[Outcome]) -> str:
    """The page with a policy that keeps it inert, and what is wrong on top."""
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style><meta charset="UTF-8">'
    order = {"fail": 0, "warn": 1, "refuse": 2}
    broken = sorted((one for one in outcomes if not one.success), key=lambda one: order[one.level])
    rows = "".join(_row(one) for one in broken)
    summary = (
        f'<div class="mfh"><h1>{html.escape(title)}</h1><p>{len(outcomes)} expectations, {len(broken)} broken.</p>'
        "<table><tr><th>level</th><th>where</th><th>expectation</th><th>observed</th><th>limit</th><th>how the limit "
        f"came about</th><th>more</th></tr>{rows}</table></div>"
    )
    start = page.index("<head>") + len("<head>")
    page = page[:start] + head + page[start:]
    body = page.index(">", page.index("<body")) + 1
    return page[:body] + summary + page[body:]


def _row(one: Outcome) -> str:
    where = f"{one.table}.{one.column}" if one.column else one.table
    more = one.detail + (f" passed by {one.passed_by}" if one.passed_by else "")
    cells = (one.level, where, one.expectation, shown(one.observed), one.limits, one.rule, more)
    return f'<tr class="{one.level}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
