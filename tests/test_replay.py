"""Replay of a day: logged rounds with candidate sets, and random exposures without."""

from collections.abc import Callable, Iterable, Mapping
from math import comb
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from components.context import Context
from components.feed.schema import REQUESTS
from components.heldout import Heldout, load_heldout
from components.logged import REWARDS, LoggedSlots, distinct_pairs, logged_slots
from components.replay import replay_logged
from components.replay_random import SET, Exposures, replay_exposures, replay_random
from components.train import Role
from simulator.offpolicy.record import Cell, OffPolicy
from simulator.policy import Fusion, Ranker
from tests.small_lake import Row, at, context_at, day_at, feature_columns, shown, write
from tests.test_heldout import write_heldout

DAY = day_at(0)
VIDEOS = range(10, 16)
MANY = 10**9


def propensities(sets: Iterable[int]) -> NDArray[np.float64]:
    """A logging policy that prefers high ids."""
    weight = np.array([one - 8.0 for one in sets])
    return weight / weight.sum()


def logged_day(users: int, seed: int = 1, each: int = 3, uniform: float = 0.2) -> tuple[list[Row], list[Row]]:
    """Sessions of a few slots: a logging policy over sets of four, and clicks that come of the shown id alone."""
    rng = np.random.default_rng(seed)
    rows, requests = [], []
    for user in range(users):
        for slot in range(each):
            sets = rng.permutation(VIDEOS)[:4].tolist()
            chance = propensities(sets)
            random = bool(rng.random() < uniform)
            mixed = (1 - uniform) * chance + uniform / 4
            place = int(rng.choice(4, p=np.full(4, 0.25) if random else chance))
            video = sets[place]
            click = int(rng.random() < click_rate(video))
            values = {"click": click, "like": None, "watch_ms": 1_000 * (video - 9), "position": slot}
            values |= {"propensity": float(mixed[place]), "is_random": random, "session_id": 500 + user}
            rows.append(shown(user, video, at(DAY, 9, slot), **values))
            scores = [float(one) for one in sets]
            requests.append(
                {"session_id": 500 + user, "slot": slot, "user_id": user, "candidates": sets}
                | {"scores": scores, "probabilities": mixed.tolist()}
            )
    return rows, requests


def click_rate(video: int) -> float:
    return 0.1 + 0.15 * (video % 5)


def prepared(home: Path, rows: list[Row], requests: list[Row]) -> tuple[Context, Heldout]:
    context = context_at(home)
    write_heldout(context, rows, requests={500: list(VIDEOS)})
    write(context, "requests", DAY, pa.Table.from_pylist(requests, schema=REQUESTS))
    return context, load_heldout(context, DAY, 0.0)


def slots_of(context: Context, held: Heldout, pairs: int = MANY) -> LoggedSlots:
    found = logged_slots(context, held, DAY, pairs)
    assert isinstance(found, LoggedSlots)
    return found


class Taste:
    """An arm that likes videos by a rule on their ids."""

    tasks = ("long_view", "like", "skip")

    def __init__(self, ids: NDArray[np.int64], rule: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> None:
        self.ids, self.rule = ids, rule

    def score(
        self,
        user_index: NDArray[np.int64],
        video_index: NDArray[np.int64],
        context: pa.Table,
        group: NDArray[np.int8],
    ) -> NDArray[np.float32]:
        assert len(user_index) == len(video_index) == context.num_rows == len(group)
        liked = self.rule(self.ids[video_index]).astype(np.float32)
        return np.column_stack([liked, liked * 0, liked * 0])


FUSION = Fusion({"long_view": 1.0})


def arms(held: Heldout) -> dict[Role, Ranker]:
    ids = held.videos["video_id"].to_numpy()
    return {
        "treatment": Ranker(Taste(ids, lambda one: (one % 5).astype(float)), FUSION),
        "baseline": Ranker(Taste(ids, lambda one: -(one % 5).astype(float)), FUSION),
    }


def best_of(sets: Iterable[Iterable[int]], rule: Callable[[int], float]) -> float:
    """The click rate of a policy that takes the best of each set; equal ones share."""
    total, count = 0.0, 0
    for one in sets:
        videos = list(one)
        top = max(rule(v) for v in videos)
        best = [v for v in videos if rule(v) == top]
        total += sum(click_rate(v) for v in best) / len(best)
        count += 1
    return total / count


def cell(
    found: OffPolicy, part: str, reward: str, estimator: str, segment: str = "all", horizon: int | None = 1
) -> Cell:
    hits = [
        one
        for one in found.cells
        if (one.part, one.reward, one.estimator, one.segment) == (part, reward, estimator, segment)
        and (part != "sessions" or one.horizon == horizon)
    ]
    assert len(hits) == 1
    return hits[0]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[OffPolicy, list[Row]]:
    rows, requests = logged_day(1_500)
    context, held = prepared(tmp_path_factory.mktemp("big"), rows, requests)
    return replay_logged(context, DAY, held, slots_of(context, held), arms(held)), requests


@pytest.mark.parametrize("part", ["logged", "uniform"])
@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "sndr"])
def test_both_arms_earn_what_their_choices_are_worth(
    big: tuple[OffPolicy, list[Row]], part: str, estimator: str
) -> None:
    found, requests = big
    sets = [one["candidates"] for one in requests]
    truth = {"treatment": best_of(sets, lambda v: v % 5), "baseline": best_of(sets, lambda v: -(v % 5))}
    one = cell(found, part, "click", estimator)
    for role, value in truth.items():
        effect = getattr(one, role)
        assert effect.value == pytest.approx(value, abs=4 * effect.se)
        assert effect.se < 0.08
    assert one.difference.value == pytest.approx(truth["treatment"] - truth["baseline"], abs=4 * one.difference.se)
    assert one.difference.p_value < 1e-4


def test_the_record_describes_rounds_weights_and_sessions(big: tuple[OffPolicy, list[Row]]) -> None:
    found, _ = big
    assert (found.rounds, found.users, found.users_share, found.left_out) == (4_500, 1_500, 1.0, {})
    of_arm = {(one.part, one.segment, one.arm): one.weights for one in found.weights}
    whole = of_arm["logged", "all", "treatment"]
    assert whole.mean == pytest.approx(1.0, abs=0.1)
    assert of_arm["uniform", "all", "baseline"].largest == 4.0
    assert whole.matched == sum(of_arm["logged", g, "treatment"].matched for g in ("new", "low", "high"))
    # Nobody is new or of low activity here, which is said in words.
    assert cell(found, "logged", "click", "dr", "new").treatment.reason == "there is no logged round"
    depth = {(one.arm, one.horizon): one for one in found.sessions if one.segment == "all"}
    assert depth["treatment", 1].effective_sessions > depth["treatment", 3].effective_sessions
    assert depth["treatment", 5] == depth["treatment", None].model_copy(update={"horizon": 5})


def test_session_sums_are_slot_by_slot_values_where_the_weights_carry(big: tuple[OffPolicy, list[Row]]) -> None:
    found, requests = big
    truth = best_of((one["candidates"] for one in requests if one["slot"] == 0), lambda v: v % 5)
    for name in ("session_is", "pdis", "cascade_dr"):
        one = cell(found, "sessions", "click", name, horizon=1).treatment
        assert one.value == pytest.approx(truth, abs=4 * one.se)
    # Two slots earn twice as much: slots are alike here, and nobody leaves.
    two = cell(found, "sessions", "click", "cascade_dr", horizon=2).treatment
    assert two.value == pytest.approx(2 * truth, abs=4 * two.se)


def test_what_the_feed_does_not_record_is_refused(big: tuple[OffPolicy, list[Row]]) -> None:
    found, _ = big
    for name in ("ips", "dr"):
        one = cell(found, "logged", "like", name)
        assert one.treatment.value is None
        assert one.difference.value is None
    assert "not finite in 4500 of 4500" in (cell(found, "logged", "like", "ips").treatment.reason or "")
    assert cell(found, "logged", "like", "dm").treatment.reason == "there is no reward model"


def test_the_record_is_plain_json(big: tuple[OffPolicy, list[Row]]) -> None:
    found, _ = big
    assert OffPolicy.model_validate_json(found.model_dump_json()) == found


def test_equal_arms_differ_by_nothing(tmp_path: Path) -> None:
    context, held = prepared(tmp_path, *logged_day(200))
    one = arms(held)["treatment"]
    found = replay_logged(context, DAY, held, slots_of(context, held), {"treatment": one, "baseline": one})
    values = {c.difference.value for c in found.cells}
    assert values <= {0.0, None}
    assert cell(found, "logged", "watch_s", "dr").difference.reason is not None


def test_rounds_know_their_sets_and_what_they_earned(tmp_path: Path) -> None:
    rows, requests = logged_day(20)
    rows = [row | {"propensity": None} if row["user_id"] == 3 else row for row in rows]
    context, held = prepared(tmp_path, rows, requests)
    slots = slots_of(context, held)
    by_slot = {(one["session_id"], one["slot"]): one for one in requests}
    by_row = {(row["session_id"], row["position"]): row for row in rows}
    for i in range(len(slots.user_id)):
        key = int(slots.session_id[i]), int(slots.slot[i])
        inside = slice(slots.candidates.offsets[i], slots.candidates.offsets[i + 1])
        assert held.ids[slots.candidates.ids[inside]].tolist() == by_slot[key]["candidates"]
        assert held.ids[slots.candidates.ids[slots.candidates.logged[i]]] == by_row[key]["video_id"]
        assert slots.scores[inside].tolist() == by_slot[key]["scores"]
        place = by_slot[key]["candidates"].index(by_row[key]["video_id"])
        # What the log does not say, the set does.
        assert slots.propensity[i] == pytest.approx(by_slot[key]["probabilities"][place])
        assert slots.rewards[i, list(REWARDS).index("watch_s")] == by_row[key]["watch_ms"] / 1_000
        assert held.sessions["session_id"][int(slots.session_row[i])].as_py() == key[0]
    assert np.isnan(slots.rewards[:, list(REWARDS).index("like")]).all()


def test_some_rounds_are_those_rounds(tmp_path: Path) -> None:
    context, held = prepared(tmp_path, *logged_day(20))
    slots = slots_of(context, held)
    rows = np.array([3, 4, 20, 59])
    few = slots.select(rows)
    assert few.user_id.tolist() == slots.user_id[rows].tolist()
    for i, row in enumerate(rows):
        a = slice(few.candidates.offsets[i], few.candidates.offsets[i + 1])
        b = slice(slots.candidates.offsets[row], slots.candidates.offsets[row + 1])
        assert few.candidates.ids[a].tolist() == slots.candidates.ids[b].tolist()
        assert few.candidates.probabilities is not None
        assert slots.candidates.probabilities is not None
        assert few.candidates.probabilities[few.candidates.logged[i]] == pytest.approx(
            slots.candidates.probabilities[slots.candidates.logged[row]]
        )
    pairs = distinct_pairs(held, slots)
    assert (pairs.session[pairs.of_candidate] == slots.session_row[slots.owner]).all()
    assert (pairs.video[pairs.of_candidate] % len(held.ids) == slots.candidates.ids).all()
    assert len(pairs.session) < len(slots.candidates.ids)


def test_rounds_that_can_not_be_used_are_counted(tmp_path: Path) -> None:
    rows, requests = logged_day(10)
    context, held = prepared(tmp_path, rows, requests)
    requests[0]["candidates"] = []
    requests[1]["candidates"] = [10, 11, 12, 999]
    requests[2] |= {"probabilities": None}
    twice = requests[3] | {"candidates": [10, 11], "scores": None, "probabilities": None}
    write(context, "requests", DAY, pa.Table.from_pylist([*requests[:-1], twice], schema=REQUESTS))
    slots = slots_of(context, held)
    assert slots.left_out == {
        "no candidate set was logged": 1,
        "the candidate set is empty": 1,
        "a candidate has no features": 1,
    }
    assert len(slots.user_id) == 27
    assert slots.candidates.probabilities is not None
    assert np.isnan(slots.candidates.probabilities).sum() == 4


def test_users_are_thinned_whole_to_bound_the_cost(tmp_path: Path) -> None:
    context, held = prepared(tmp_path, *logged_day(200))
    slots = slots_of(context, held, pairs=1_200)
    assert slots.users_share == 0.5
    counts = np.unique(slots.user_id, return_counts=True)[1]
    assert set(counts) == {3}
    assert 70 < len(counts) < 130


def test_a_feed_without_sets_or_random_exposures_says_so(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    found = replay_random(context, day_at(1), {"holdout_day": DAY.isoformat()})
    assert "neither candidate sets" in (found.reason or "")
    assert found.cells == ()
    write_heldout(context, logged_day(2)[0])
    assert logged_slots(context, load_heldout(context, DAY, 0.0), DAY, MANY) == "the feed logs no candidate sets"


def exposures(users: int, each: int, pool: int) -> Exposures:
    rng = np.random.default_rng(1)
    n = users * each
    video = rng.integers(0, pool, n)
    of_users, of_videos = dict(feature_columns("user", users)), dict(feature_columns("video", pool))
    return Exposures(
        user=np.repeat(np.arange(users), each),
        video=video,
        user_id=np.repeat(np.arange(users), each) + 1_000,
        number=np.tile(np.arange(each), users),
        click=(rng.random(n) < video / pool).astype(np.float64),
        rates=np.bincount(video, minlength=pool).astype(np.float64),
        users=pa.table({"user_id": np.arange(users) + 1_000, "group": pa.array([2] * users, pa.int8()), **of_users}),
        videos=pa.table(
            {"video_id": np.arange(pool), "log_video_age_days": pa.array([1.0] * pool, pa.float32()), **of_videos}
        ),
        users_share=1.0,
        left_out={},
    )


def test_random_exposures_are_replayed_with_random_sets(tmp_path: Path) -> None:
    pool = 40
    found_in = exposures(users=600, each=20, pool=pool)
    rankers: Mapping[Role, Ranker] = {
        "treatment": Ranker(Taste(np.arange(pool), lambda one: one.astype(float)), FUSION),
        "baseline": Ranker(Taste(np.arange(pool), lambda one: one * 0.0), FUSION),
    }
    request = {"surface": "feed", "hour": 9}
    found = replay_exposures(context_at(tmp_path), DAY.isoformat(), found_in, rankers, request)
    best = np.array([comb(i, SET - 1) / comb(pool, SET) for i in range(pool)])
    for part in ("random_sets", "measured_rates"):
        for name in ("ips", "snips"):
            one = cell(found, part, "click", name)
            assert one.treatment.value == pytest.approx(float(best @ np.arange(pool)) / pool, abs=4 * one.treatment.se)
            assert one.baseline.value == pytest.approx(found_in.click.mean(), abs=4 * one.baseline.se)
            assert one.difference.p_value < 1e-6
        assert cell(found, part, "click", "dr").treatment.reason == "there is no reward model"
    assert any("random set of 10 of the pool's 40 videos" in note for note in found.notes)
    assert any("were shown less than half as often" in note for note in found.notes)
