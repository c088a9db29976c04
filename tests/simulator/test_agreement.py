"""Rung V4 on synthetic slots whose truth is known: it finds agreement, disagreement, and its own weakness."""

import numpy as np
import pytest

from simulator.agreement import Agreement, FirstSlots, compare, missing
from simulator.offpolicy import Candidates, greedy, rounds_over

CHOICES = 4


def slots(
    users: int,
    *,
    wrong: float = 0.0,
    logs_model: bool = True,
    propensity: float | None = None,
    alike: bool = False,
    noise: float = 1.0,
    seed: int = 0,
) -> FirstSlots:
    """Two slots a user; four candidates with known means; the response model is off by ``wrong`` times the appeal."""
    rng = np.random.default_rng(seed)
    n = 2 * users
    user = np.repeat(np.arange(users), 2)
    appeal = rng.normal(size=(n, CHOICES))
    mean = 10 + 2 * appeal + rng.normal(size=users)[user, None]
    chosen = rng.integers(0, CHOICES, n)
    reward = mean[np.arange(n), chosen] + noise * rng.normal(size=n)
    offsets = np.arange(0, CHOICES * n + 1, CHOICES)
    sets = Candidates(offsets, np.tile(np.arange(CHOICES), n), offsets[:-1] + chosen)
    better = greedy(offsets, appeal.ravel())
    worse = better if alike else greedy(offsets, -appeal.ravel())
    known = np.full(n, 1 / CHOICES if propensity is None else propensity)
    # The log's own reward model knows half of it.
    own = (10 + appeal).ravel() if logs_model else None
    t, b = (rounds_over(sets, p, own, reward=reward, propensity=known, cluster=user) for p in (better, worse))
    predicted = np.add.reduceat((better - worse) * (mean + wrong * appeal).ravel(), offsets[:-1])
    return FirstSlots(t, b, predicted, np.full(n, 2, np.int8), "s")


def found(*rewards: FirstSlots, limit: float = 0.2) -> Agreement:
    return compare("2026-01-01", {f"r{i}": one for i, one in enumerate(rewards)}, confidence=0.95, limit=limit)


@pytest.mark.parametrize("logs_model", [True, False], ids=["dr", "ips"])
def test_a_right_response_model_agrees(logs_model: bool) -> None:
    record = found(slots(2_000, logs_model=logs_model))
    assert record.state == "passed"
    assert record.estimator == ("dr" if logs_model else "ips")
    whole = next(cell for cell in record.cells if cell.segment == "all")
    assert whole.slots == 4_000
    assert whole.users == 2_000
    # The best of four standard normal numbers is 1.03 on average, and so is minus the worst.
    assert whole.rollouts.value == pytest.approx(2 * 2 * 1.0294, abs=0.1)
    assert whole.replay.value == pytest.approx(whole.rollouts.value, abs=4 * (whole.replay.se or 0))
    assert whole.level == pytest.approx(10, abs=0.2)


def test_a_response_model_that_exaggerates_disagrees_and_the_sign_is_told() -> None:
    record = found(slots(2_000, wrong=1.0), slots(2_000))
    assert record.state == "failed"
    assert "r0 of all users" in record.detail
    whole = next(cell for cell in record.cells if cell.segment == "all")
    assert whole.state == "failed"
    # The model promises 2 x 1.03 too much.
    assert whole.difference.value == pytest.approx(-2 * 1.0294, abs=4 * (whole.difference.se or 0))


def test_a_wide_interval_that_holds_zero_is_no_pass() -> None:
    record = found(slots(300, noise=60.0))
    assert record.state == "not powered"
    assert "20 % is the limit" in record.detail
    assert found(slots(300, noise=60.0), limit=10.0).state == "passed"


def test_a_wide_interval_that_misses_zero_still_fails() -> None:
    assert found(slots(300, wrong=100.0, noise=60.0)).state == "failed"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (slots(20), "effective sample size"),
        (slots(400, propensity=np.nan), "propensity is unknown"),
        (slots(400, propensity=0.0), "propensity of 0"),
        (slots(400, alike=True), "the same for every user"),
    ],
    ids=["few", "unknown", "impossible", "alike"],
)
def test_what_can_not_be_compared_says_why(given: FirstSlots, words: str) -> None:
    record = found(given)
    assert record.state == "not powered"
    assert words in record.detail
    assert all(cell.difference.low is None for cell in record.cells)


def test_segments_without_slots_have_no_number() -> None:
    record = found(slots(2_000))
    new = next(cell for cell in record.cells if cell.segment == "new")
    assert (new.state, new.slots, new.level) == ("not powered", 0, None)
    assert "no logged round" in (new.reason or "")
    assert new.rollouts.reason == "the response model has no value"


def test_a_prediction_that_is_missing_is_counted() -> None:
    given = slots(2_000)
    given.predicted[:3] = np.nan
    assert "no value in 3 of 4000 slots" in found(given).detail


def test_all_cells_share_the_confidence() -> None:
    record = found(slots(500), slots(500, seed=1))
    assert record.cell_confidence == pytest.approx(1 - 0.05 / 8)
    assert len(record.cells) == 8
    # Right models fail about one time in twenty over all cells, seldom per cell.
    failures = [found(slots(300, seed=seed)).state == "failed" for seed in range(200)]
    assert sum(failures) <= 14


def test_the_record_is_plain_json() -> None:
    for record in (found(slots(500)), missing("2026-01-01", "nothing was logged")):
        assert Agreement.model_validate_json(record.model_dump_json()) == record
