"""Rung V4 over a small lake: what the response model says of a day's first slots, against what the day's log says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from components.agreement import agree, agreement
from components.context import Context
from components.feed.schema import REQUESTS
from components.heldout import Heldout, load_heldout
from components.logged import LoggedSlots, logged_slots
from simulator.agreement import Agreement
from simulator.appeal import Predictions, WatchScale
from simulator.evidence import Evidence
from simulator.response_data import Pairs
from simulator.response_state import Centre
from tests.small_lake import context_at, day_at, write
from tests.test_heldout import write_heldout
from tests.test_replay import DAY, MANY, VIDEOS, arms, logged_day, prepared

SKIPPED_MS = 1_500


class Knowing:
    """A response model that says what each video earns; skipped below three seconds."""

    behaviours = ()
    size = 2
    evidence: Evidence | None = None

    def __init__(self, seconds: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> None:
        self.seconds = seconds

    def fold(self, user_id: NDArray[np.int64]) -> NDArray[np.int64]:
        return user_id % 2

    def scales(self, member: int) -> tuple[WatchScale, ...]:
        # Members are off by as much to both sides: the mean is right.
        return tuple(
            WatchScale(100.0, SKIPPED_MS / 1_000, 10.0, (0.0,), ((0.9 + 0.2 * member,),) * 3) for _ in range(2)
        )

    def centre(self, member: int) -> Centre:
        raise AssertionError("first slots have no state")

    def appeal(self, member: int, pairs: Pairs, evidence: NDArray[np.float64] | None = None) -> Predictions:
        assert (pairs.repeats == 0).all()
        seconds = self.seconds(pairs.video_id)
        none = np.zeros(len(seconds))
        return Predictions(
            (seconds < 3).astype(float), np.log(seconds / pairs.duration_s), none + 1e-9, none[:, None], none[:, None]
        )

    def leave_terms(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], user_features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        raise AssertionError("nobody leaves before the first slot")

    def return_probability(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], day: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        raise AssertionError("a slot is no day")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, Heldout, LoggedSlots]:
    rows, requests = logged_day(1_500)
    # The log is skipped as the model skips, and noisy where it is not.
    rng = np.random.default_rng(5)
    noisy = [row["watch_ms"] * rng.lognormal(-0.02, 0.2) if row["watch_ms"] >= 3_000 else SKIPPED_MS for row in rows]
    kept = [
        row | {"watch_ms": max(int(ms), 3_000) if ms != SKIPPED_MS else ms} for row, ms in zip(rows, noisy, strict=True)
    ]
    context, held = prepared(tmp_path_factory.mktemp("agree"), kept, requests)
    slots = logged_slots(context, held, DAY, MANY, first=1)
    assert isinstance(slots, LoggedSlots)
    return context, held, slots


def state_of(record: Agreement, reward: str) -> str:
    return next(cell.state for cell in record.cells if cell.segment == "all" and cell.reward == reward)


def test_only_first_slots_are_read(big: tuple[Context, Heldout, LoggedSlots]) -> None:
    _, _, slots = big
    assert len(slots.user_id) == 1_500
    assert set(slots.slot) == {0}


def test_a_model_that_knows_what_videos_earn_agrees_with_the_log(big: tuple[Context, Heldout, LoggedSlots]) -> None:
    context, held, slots = big
    record = agree(context, DAY, held, slots, arms(held), Knowing(lambda ids: ids - 9.0))
    assert record.estimator == "dr"
    assert record.state == "passed", record.detail
    whole = next(cell for cell in record.cells if cell.reward == "watch_s")
    assert whole.difference.se is not None
    assert whole.rollouts.value is not None
    assert abs(whole.rollouts.value) > 0.3, "the arms do differ"


def test_a_model_that_has_it_the_wrong_way_round_disagrees(big: tuple[Context, Heldout, LoggedSlots]) -> None:
    context, held, slots = big
    record = agree(context, DAY, held, slots, arms(held), Knowing(lambda ids: 16.0 - ids))
    assert record.state == "failed"
    assert state_of(record, "skip") == "failed"


def test_a_feed_without_candidate_sets_shares_no_slot(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    write_heldout(context, logged_day(3)[0])
    with context.runs.write("training_set", day_at(1)) as writer:
        writer.json("training_set.json", {"holdout_day": DAY.isoformat(), "activity_threshold": 0.0})
    assert agreement(context, day_at(1)).state == "missing"


def test_sets_that_fit_no_round_are_named(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    rows, requests = logged_day(3)
    write_heldout(context, rows, requests={500: list(VIDEOS)})
    empty = [one | {"candidates": []} for one in requests]
    write(context, "requests", DAY, pa.Table.from_pylist(empty, schema=REQUESTS))
    with context.runs.write("training_set", day_at(1)) as writer:
        writer.json("training_set.json", {"holdout_day": DAY.isoformat(), "activity_threshold": 0.0})
    record = agreement(context, day_at(1))
    assert record.state == "missing"
    assert "candidate set is empty" in record.detail
    assert load_heldout(context, DAY, 0.0).requests is not None
