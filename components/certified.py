"""The figures behind the certificate's rungs that a report shows: the backtest's and the sensitivity's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.checks.certificate import CERTIFICATE, simulator_hash
from components.config import SimulatorSettings
from components.errors import ConfigError
from simulator.metrics import METRICS
from simulator.surroundings import BacktestCell, Certificate, Variation, VariedLift


def certificate_figures(settings: SimulatorSettings, path: Path = CERTIFICATE) -> Certificate:
    """What the certificate of a pipeline's simulator found in figures.

    Args:
        settings: Of the pipeline.
        path: The certificate's file.

    Returns:
        The figures; none, with the reason, where no certificate speaks of this code and these settings.

    Raises:
        ConfigError: When the file is no certificate.
    """
    mine = simulator_hash(settings)
    if not path.exists():
        return Certificate(simulator=mine, reason="no certificate was made; 'mfh check all' makes one")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        theirs = record["simulator"]
        if theirs != mine:
            return Certificate(
                simulator=mine, reason=f"the certificate is of another simulator ({theirs}, this is {mine})"
            )
        by_rung = {name: [one for one in record["found"] if one["rung"] == name] for name in _RUNGS}
        return Certificate(
            simulator=mine,
            machine=record["machine"],
            backtest=tuple(cell for one in by_rung["V2 backtest"] for cell in _backtest(one)),
            sensitivity=tuple(_variation(row) for one in by_rung["V6 sensitivity"] for row in one["rows"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no certificate of this schema: {error!r}; make it anew: mfh check all") from error


_RUNGS = ("V2 backtest", "V6 sensitivity")


def _backtest(found: dict[str, Any]) -> Iterator[BacktestCell]:
    known = {metric.name: metric for metric in METRICS}
    for row in found["rows"]:
        # What is no metric is a bin of session depths, whose number is a share of sessions.
        metric = known.get(row["metric"])
        yield BacktestCell(
            feed=found["config"]["feed"],
            title=f"Session {row['metric']}" if metric is None else metric.title,
            unit="share" if metric is None else metric.unit,
            **row,
        )


def _variation(row: dict[str, Any]) -> Variation:
    return Variation(
        variation=row["variation"],
        treatment=row["treatment"],
        baseline=row["baseline"],
        lifts=tuple(
            VariedLift(
                segment=segment,
                app_time=row[f"app_time_{segment}"],
                low=row[f"low_{segment}"],
                high=row[f"high_{segment}"],
                returning=row[f"return_{segment}"],
            )
            for segment in ("new", "all")
        ),
        decision=row["decision"],
    )
