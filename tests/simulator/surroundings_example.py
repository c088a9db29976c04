"""Fixed surroundings of an experiment, with everything that they may hold: made up, of no run."""

from simulator.surroundings import (
    BacktestCell,
    Certificate,
    DayChecks,
    Distribution,
    Document,
    Drift,
    Gate,
    Quantiles,
    Run,
    Skew,
    Variation,
    VariedLift,
)
from tests.simulator.hostile import HOSTILE, HOSTILE_IMAGE


def depths() -> dict[str, tuple[int, ...]]:
    """Sessions by number of impressions, from one on."""
    found = {
        "log": "2103 1711 1502 1299 1180 1043 921 845 770 701 634 560 498 455 402 371 340 311 280 255",
        "treatment": "3990 3301 2904 2610 2377 2101 1911 1760 1620 1502 1377 1241 1103 1010 931 860 799 733 671 612",
        "baseline": "4317 3555 3099 2711 2402 2140 1899 1711 1544 1401 1260 1133 1020 927 844 771 701 640",
    }
    return {name: tuple(map(int, counts.split())) for name, counts in found.items()}


def app_time() -> Distribution:
    """Three bins; one arm nobody was simulated in."""
    return Distribution(
        unit="s",
        edges=(0.0, 45.0, 7_200.0),
        users={"log": (611, 2_310, 17), "treatment": (403, 2_499, 36), "baseline": (0, 0, 0)},
        quantiles={
            "log": Quantiles(low=21.7, middle=402.9, high=1_931.4),
            "treatment": Quantiles(low=52.3, middle=431.8, high=2_044.6),
        },
    )


def certificate() -> Certificate:
    """One number that came back, one that the feed does not log, and two variations: one changes the decision."""
    return Certificate(
        simulator="9a80ab3cde9b",
        machine="2 cores of a processor",
        backtest=(
            BacktestCell(
                feed="world",
                metric="app_time",
                title="App time per user and day",
                unit="s",
                segment="all",
                users=6_029,
                logged=462.31,
                low=451.22,
                high=473.44,
                simulated=500.85,
                state="failed",
            ),
            BacktestCell(
                feed=f"feed {HOSTILE}",
                metric="dislikes",
                title="Dislikes per user",
                unit="count",
                segment="new",
                users=743,
                logged=None,
                low=None,
                high=None,
                simulated=0.0187,
                state="missing",
            ),
        ),
        sensitivity=(
            Variation(
                variation="as it is",
                treatment="mfh",
                baseline="popularity",
                lifts=(
                    VariedLift(segment="new", app_time=23.66, low=9.01, high=38.31, returning=1.294),
                    VariedLift(segment="all", app_time=43.56, low=33.29, high=53.84, returning=None),
                ),
                decision="ship",
            ),
            Variation(
                variation=f"leaving x 0.5 {HOSTILE}",
                treatment="mfh",
                baseline="popularity",
                lifts=(VariedLift(segment="new", app_time=None, low=None, high=None, returning=2.279),),
                decision="hold",
            ),
        ),
    )


def checks() -> DayChecks:
    """Gates in every state, drift and skew with and without a number, and what the day does not have."""
    return DayChecks(
        gates=(
            Gate(name="validation_log", title="Log", state="passed", detail="41 of 41 hold", checks=41, failed=0),
            Gate(
                name="validation_features",
                title="Features",
                state="warned",
                detail="57 of 59 hold",
                checks=59,
                failed=2,
                warnings=(f"user_features.age: {HOSTILE}", "video_features.topic: too many unknown"),
            ),
            Gate(
                name="validation_models",
                title="Models",
                state="overridden",
                detail="12 of 13 hold",
                checks=13,
                failed=1,
                override=f"models.auc by ann: the new task has 3 days only {HOSTILE_IMAGE}",
            ),
            Gate(name="validation_training_set", title="Training set", state="failed", detail="it broke"),
        ),
        drift=(
            Drift(feature="age_days", group="new", value=0.317, limit=0.2, state="failed"),
            Drift(feature=f"topic {HOSTILE}", measure="distance", value=None, state="missing", reason="no day before"),
        ),
        skew=(
            Skew(entity="user", compared=2_007, mismatched=3, share=0.001495, limit=0.0105, detail="3 of age_days"),
            Skew(entity="video", compared=0, mismatched=0, share=None, state="missing"),
        ),
        documents=(Document(title=f"Data Docs {HOSTILE}", href="../../validation_log/ds=2026-03-12/data_docs.html"),),
        absent={"Feature report": "this pipeline does not write it"},
    )


def run() -> Run:
    """A second try under Airflow."""
    return Run(run_id="backfill__2026-03-13T00:00:00+00:00", attempt=2, written_at="2026-03-13T01:02:03+00:00")


CONFIG = {
    "name": "daily_world",
    "tasks": [{"name": "like", "weight": 0.25}, {"name": "long_view", "weight": 1.0}],
    "train": {"window_days": 7, "seed": None, "note": HOSTILE},
    "decision": {"primary_segment": "new", "min_users": 137},
}
