"""V3's arithmetic on cells whose bias, coverage and ranks are planted; a tiny world from end to end."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components.checks import aa, agreements, backtests, sensitivity, truth
from components.checks.arms import BASELINE, LOGGED, ORACLES
from components.checks.truth import (
    Cell,
    by_arm,
    calibrate,
    check_truth,
    covered,
    run_world,
    run_worlds,
    seeds_of,
    summary,
)
from components.checks.worlds import CALIBRATION, DESIGN, TEST, WorldDay
from tests.checks.conftest import SEED, TINY

ARMS = tuple(name for name in LOGGED if name != BASELINE)
TRUTHS = dict(zip(ARMS, (-0.10, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30), strict=True))
MEAN_LIFT = float(np.mean(np.abs(list(TRUTHS.values()))))
KEYS = [(metric, segment) for metric in truth.METRICS for segment in truth.SEGMENTS]


def made(bias: float = 0.0, spread: float = 1.0, se: float = 0.01, worlds: int = 60, seed: int = 0) -> list[Cell]:
    """Cells whose errors are exact normal quantiles, ``spread`` times as wide as their standard errors say."""
    count = worlds * len(ARMS)
    z = stats.norm.ppf((np.arange(count) + 0.5) / count)
    rng = np.random.default_rng(seed)
    cells = []
    for metric, segment in KEYS:
        error = iter(bias + spread * se * rng.permutation(z))
        for world in range(worlds):
            cells += [
                Cell(world, arm, metric, segment, 100, TRUTHS[arm] + next(error), se, 1e6, TRUTHS[arm], 1.0)
                for arm in ARMS
            ]
    return cells


def row(rows: list[dict], metric: str = "app_time", segment: str = "all") -> dict:
    return next(one for one in rows if (one["metric"], one["segment"]) == (metric, segment))


def test_a_right_estimator_passes_everywhere():
    rows = summary(made(), widening=1.0)
    assert [(one["metric"], one["segment"]) for one in rows] == KEYS
    assert all(one["passed"] for one in rows)
    first = row(rows)
    assert (first["worlds"], first["users_per_world"], first["not_estimable"]) == (60, 100, 0)
    assert first["bias"] == pytest.approx(0.0, abs=1e-9)
    assert first["mean_abs_lift"] == pytest.approx(MEAN_LIFT)
    assert first["rmse"] == pytest.approx(0.01, rel=0.02)
    assert first["coverage"] == first["coverage_unwidened"] == pytest.approx(0.95, abs=0.01)
    assert first["rank_correlation"] > 0.98


def test_a_biased_estimator_fails_though_its_intervals_cover():
    rows = summary(made(bias=0.05, spread=0.1, se=0.1), widening=1.0)
    first = row(rows)
    assert first["bias"] == pytest.approx(0.05)
    assert first["bias_share"] == pytest.approx(0.05 / MEAN_LIFT)
    assert first["coverage"] == 1.0
    # 30 % of the mean lift is more than a fifth and less than the third that new users' app time is allowed.
    assert [(one["metric"], one["segment"]) for one in rows if one["passed"]] == [("app_time", "new")]
    # The other direction is no better.
    assert not row(summary(made(bias=-0.05, spread=0.1, se=0.1), 1.0))["passed"]


def test_worlds_weigh_alike_and_their_scatter_is_the_bias_standard_error():
    cells = [replace(cell, estimate=cell.truth + 0.01 * (cell.seed + 1)) for cell in made(worlds=2)]
    # A world of which one arm is left says as much of the bias as the other.
    kept = [cell for cell in cells if cell.seed == 0 or cell.arm == ARMS[0]]
    first = row(summary(kept, 1.0))
    assert first["bias"] == pytest.approx(0.015)
    assert first["bias_se"] == pytest.approx(0.005)
    assert row(summary([cell for cell in cells if cell.seed == 0], 1.0))["bias_se"] is None


def test_too_short_intervals_fail_until_they_are_widened():
    cells = made(spread=2.0)
    short = row(summary(cells, widening=1.0))
    assert short["coverage"] == pytest.approx(2 * stats.norm.cdf(1.96 / 2) - 1, abs=0.01)
    assert not short["passed"]
    wide = row(summary(cells, widening=2.0))
    assert wide["coverage"] == pytest.approx(0.95, abs=0.01)
    assert wide["coverage_unwidened"] == short["coverage"]
    assert wide["passed"]


def test_wrong_ranks_fail():
    """By hand: three arms and the popularity arm at 0, two of them exchanged."""
    three = [cell for cell in made(worlds=1) if cell.arm in ARMS[1:4]]
    estimates = dict(zip(ARMS[1:4], (0.10, 0.05, 0.15), strict=True))
    cells = [replace(cell, estimate=estimates[cell.arm], se=1.0) for cell in three]
    first = row(summary(cells, 1.0))
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15).
    assert first["rank_correlation"] == pytest.approx(0.8)
    assert first["coverage"] == 1.0
    assert abs(first["bias_share"]) < 1e-9
    assert not first["passed"]


def test_oracles_do_not_count():
    cells = made()
    oracles = [replace(cell, arm=name, estimate=9.0) for name in ORACLES for cell in cells if cell.arm == ARMS[0]]
    assert summary(cells + oracles, 1.0) == summary(cells, 1.0)
    named = {one["arm"]: one for one in by_arm(cells + oracles) if (one["metric"], one["segment"]) == KEYS[0]}
    assert list(named) == [*ARMS, *ORACLES]
    assert named[ORACLES[0]]["estimate"] == 9.0


def unknown(cell: Cell) -> Cell:
    return replace(cell, estimate=None, se=None, df=None, reason="no user with this metric")


def test_what_has_no_estimate_is_counted_and_changes_nothing_else():
    cells = made()
    more = [unknown(replace(cell, seed=99)) for cell in cells if cell.seed == 0 and cell.segment == "new"]
    before, after = summary(cells, 1.0), summary(cells + more, 1.0)
    assert [one["not_estimable"] for one in after] == [0, len(ARMS), 0, len(ARMS)]
    assert [one | {"not_estimable": 0} for one in after] == before
    assert by_arm(cells + more)[0]["estimate"] == pytest.approx(by_arm(cells)[0]["estimate"])


def test_where_nothing_has_an_estimate_nothing_is_passed_or_made_up():
    cells = [unknown(cell) if cell.metric == "return" else cell for cell in made(worlds=3)]
    first = row(summary(cells, 1.0), "return")
    assert (first["worlds"], first["not_estimable"], first["passed"]) == (0, 3 * len(ARMS), False)
    for name in ("bias", "bias_share", "bias_se", "rmse", "coverage", "rank_correlation", "mean_abs_lift"):
        assert first[name] is None, name
    blank = next(one for one in by_arm(cells) if one["metric"] == "return")
    assert (blank["estimate"], blank["coverage_unwidened"]) == (None, None)
    assert calibrate(cells) == pytest.approx(calibrate([c for c in cells if c.metric == "app_time"]))


def test_means_of_an_arm_by_hand():
    cells = [replace(cell, estimate=0.3, truth=0.1 * cell.seed, level=2.0) for cell in made(worlds=2)]
    first = by_arm(cells)[0]
    assert (first["arm"], first["metric"], first["segment"]) == (ARMS[0], "app_time", "all")
    assert (first["estimate"], first["truth"], first["level"]) == pytest.approx((0.3, 0.05, 2.0))
    assert len(by_arm(cells)) == len(ARMS) * len(KEYS)


def test_an_interval_covers_up_to_its_end():
    cell = Cell(1, "mfh", "app_time", "all", 50, 0.10, 0.02, 4.0, 0.0, 1.0)
    half = 2.7764451 * 0.02  # Student's t with 4 degrees of freedom
    assert covered(replace(cell, truth=0.10 + half - 1e-6)) is True
    assert covered(replace(cell, truth=0.10 - half - 1e-6)) is False
    assert covered(replace(cell, truth=0.10 + 1.4 * half), widening=1.5) is True
    for name in ("estimate", "se", "df"):
        assert covered(replace(cell, **{name: None})) is None


@pytest.mark.parametrize("factor", [1.5, 2.5])
def test_calibration_finds_the_planted_factor(factor: float):
    cells = made(spread=factor)
    widening = calibrate(cells)
    assert widening == pytest.approx(factor, rel=0.03)
    assert np.mean([covered(cell, widening) for cell in cells]) >= 0.95


def test_calibration_never_narrows_and_the_worst_segment_rules():
    assert calibrate(made(spread=0.5)) == 1.0
    assert calibrate([]) == 1.0
    worst = [cell for cell in made(spread=3.0) if (cell.metric, cell.segment) == ("return", "new")]
    rest = [cell for cell in made(spread=1.2) if (cell.metric, cell.segment) != ("return", "new")]
    assert calibrate(rest + worst) == pytest.approx(3.0, rel=0.03)


def test_worlds_of_design_calibration_and_report_are_different_worlds():
    design = {aa.WORLD_SEED, sensitivity.WORLD_SEED, backtests.WORLD_SEED, SEED}
    assert len(design) == 4
    design |= set(range(agreements.FIRST_SEED, agreements.FIRST_SEED + 10))
    assert len(design) == 14
    calibration, test = set(seeds_of("calibration", 24)), set(seeds_of("test", 100))
    assert (len(calibration), len(test)) == (24, 100)
    assert design < set(range(DESIGN, CALIBRATION))
    assert calibration < set(range(CALIBRATION, TEST))
    assert min(test) == TEST


def test_worlds_come_in_the_order_of_their_seeds(monkeypatch: pytest.MonkeyPatch):
    asked, seen = [], []

    def small(seed, size, names, settings=None):
        asked.append((seed, size, names, settings))
        return [cell for cell in made(worlds=1) if cell.arm == names[0]]

    monkeypatch.setattr(truth, "run_world", small)
    cells = run_worlds([5, 3], TINY, ("mfh",), 1, lambda *told: seen.append(told), {"rollouts": 1})
    assert asked == [(5, TINY, ("mfh",), {"rollouts": 1}), (3, TINY, ("mfh",), {"rollouts": 1})]
    assert len(cells) == 2 * len(KEYS)
    assert [done for done, _, _ in seen] == [0, 1]


def answer(monkeypatch: pytest.MonkeyPatch, cells: list[Cell]) -> list:
    """Every question for worlds is answered by these cells; returns what was asked."""
    asked = []

    def worlds(seeds, size, names, workers, notify, settings=None):
        asked.append((tuple(seeds), tuple(names)))
        return cells

    monkeypatch.setattr(truth, "run_worlds", worlds)
    return asked


def test_the_rung_passes_with_what_it_rests_on(monkeypatch: pytest.MonkeyPatch):
    asked = answer(monkeypatch, made(spread=1.5))
    found = check_truth(lambda *told: None, worlds=3, calibration=2, workers=1, size=TINY)
    assert asked == [((CALIBRATION, CALIBRATION + 1), LOGGED), ((TEST, TEST + 1, TEST + 2), (*LOGGED, *ORACLES))]
    assert (found.rung, found.state) == ("V3 known truth", "passed")
    assert found.facts["widening"] == pytest.approx(1.5, rel=0.03)
    assert len(found.rows) == 4
    assert len(found.facts["cells"]) == 60 * len(ARMS) * len(KEYS)
    assert "intervals x 1.5" in found.sentence
    assert found.config["size"]["users"] == TINY.users
    # Without calibration the intervals stay as they are, and are too short.
    found = check_truth(lambda *told: None, worlds=3, calibration=0, workers=1, size=TINY)
    assert (found.state, found.facts["widening"], len(asked)) == ("failed", 1.0, 3)
    assert found.sentence.startswith("Missed for app time of all users, app time of new users, return of all users")


def test_the_rung_fails_in_words_where_nothing_can_be_estimated(monkeypatch: pytest.MonkeyPatch):
    answer(monkeypatch, [unknown(cell) if cell.metric == "return" else cell for cell in made()])
    found = check_truth(lambda *told: None, worlds=3, calibration=0, workers=1, size=TINY)
    assert found.state == "failed"
    assert found.sentence.startswith("Missed for return of all users, return of new users.")
    assert "return of new users: not estimable" in found.sentence


@pytest.mark.integration
def test_a_tiny_world_from_end_to_end_and_the_same_once_more(day: WorldDay):
    names = ("random", "user_topic")
    cells = run_world(SEED, TINY, names)
    assert [(c.arm, c.metric, c.segment) for c in cells] == [(arm, *key) for arm in names for key in KEYS]
    for cell in cells:
        assert cell.reason is None
        assert cell.seed == SEED
        assert np.isfinite([cell.estimate, cell.se, cell.df, cell.truth, cell.level]).all()
        assert cell.se > 0
    (new,), (everybody,) = ({c.users for c in cells if c.segment == segment} for segment in ("new", "all"))
    assert 0 < new < everybody
    # The same world in another folder.
    assert truth._cells(SEED, day, truth._estimated(day, names)) == cells
