"""Replay step: what the held-out day's own log says of both arms, without any model of the users.

Where the feed logs candidate sets and propensities, an arm's policy takes the candidate with the best fused score in
each logged slot (equal ones share), and the estimators of ``simulator.offpolicy`` weigh what the log saw by how likely
the logging policy was to show it. The reward model of the doubly robust ones is fitted here, on the logged rounds,
cross-fitted by user: it is no part of the rollouts, so that the two can disagree. Without candidate sets, uniform
exposures are replayed with random sets (``replay_random``). Without either the record says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from components.agreement import agreement
from components.arms import day_arms
from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.heldout import Heldout, load_heldout
from components.logged import REWARDS, LoggedSlots, distinct_pairs, logged_slots
from components.replay_random import replay_random
from components.reward_features import reward_features, reward_weight
from components.simulate import rollout_inputs
from components.train import ROLES, Role
from simulator.offpolicy import greedy, rounds_over
from simulator.offpolicy.cells import (
    Arms,
    Settings,
    round_cells,
    session_cells,
    session_rows,
    starts,
    weight_rows,
)
from simulator.offpolicy.record import Cell, OffPolicy, Unit
from simulator.offpolicy.regression import FOLDS, RewardModel, fit, fold_of
from simulator.offpolicy.rounds import FloatArray, Rounds
from simulator.offpolicy.sessions import ALL_SLOTS
from simulator.policy import Ranker

# Candidates of all slots at most; beyond, users are thinned. An arm scores a candidate once per session, and that is
# what the step's time goes into.
PAIRS = 500_000

# Slots of a session that count in its metrics; None = all.
HORIZONS: tuple[int | None, ...] = (1, 2, 3, 5, None)

# Rounds whose candidates are in memory at once.
_BLOCK = 8_192
_NOTES = (
    "In each logged slot an arm takes the candidate with the best fused score; equal ones share.",
    "The reward model is a linear regression on features and production score, weighted by clipped inverse "
    "propensities and cross-fitted by user.",
    "What a user's next slots offer follows the log: a session metric reweighs whole sequences of slots.",
)


def replay(context: Context, day: date) -> StepResult:
    """Evaluate both arms on the held-out day's logged rounds, and compare first slots with the response model.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; bundles, response model and held-out sessions must be in the lake.

    Returns:
        Hash of ``replay``, how many rounds it rests on, how many differences have a value or were refused, and whether
        replay and rollouts agree.

    Raises:
        MissingPartitionError: When something that it reads is not in the lake.
    """
    use_threads(context.pipeline)
    record = context.runs.get("training_set", day).json("training_set.json")
    held_day = date.fromisoformat(record["holdout_day"])
    inputs = [*rollout_inputs(context, day), context.data.get("log", held_day)]
    if (requests := context.data.find("requests", held_day)) is not None:
        inputs.append(requests)
        found = _from_requests(context, day, held_day, record["activity_threshold"])
    else:
        found = replay_random(context, day, record)
    agreed = agreement(context, day)
    with context.runs.write("replay", day, context.pipeline.config_hash, inputs_of(*inputs)) as writer:
        writer.json("replay.json", found.model_dump(mode="json"))
        writer.json("agreement.json", agreed.model_dump(mode="json"))
    values = sum(cell.difference.value is not None for cell in found.cells)
    facts: dict[str, Any] = {"rounds": found.rounds, "differences": values, "refused": len(found.cells) - values}
    facts["agreement"] = agreed.state
    if found.reason is not None:
        facts["reason"] = found.reason
    return StepResult("replay", day, inputs_of(context.runs.get("replay", day)), facts)


def _from_requests(context: Context, day: date, held_day: date, threshold: float) -> OffPolicy:
    held = load_heldout(context, held_day, threshold)
    slots = logged_slots(context, held, held_day, PAIRS)
    if isinstance(slots, str):
        return OffPolicy(day=held_day.isoformat(), reason=slots)
    return replay_logged(context, held_day, held, slots, day_arms(context, day, held.sessions, held.videos))


def replay_logged(
    context: Context, day: date, held: Heldout, slots: LoggedSlots, arms: Mapping[Role, Ranker]
) -> OffPolicy:
    """Every estimate from logged rounds with candidate sets.

    Args:
        context: Pipeline and settings.
        day: The held-out day.
        held: Its sessions and videos.
        slots: Its rounds.
        arms: Both, over the rows of ``held``.

    Returns:
        The record.
    """
    settings = Settings(confidence=context.pipeline.decision.confidence)
    reduced = _reduce(context, held, slots, arms)
    cells = [*_round_cells(slots, reduced, settings), *_session_cells(context, slots, reduced, settings)]
    sums = _arms(slots, reduced, "watch_s")
    weights = list(weight_rows("logged", sums, settings))
    notes = list(_NOTES)
    if slots.is_random.any():
        weights += weight_rows("uniform", _uniform(slots, sums), settings)
    else:
        notes.append("No slot is marked as filled uniformly, so there is no replay on uniform slots.")
    return OffPolicy(
        day=day.isoformat(),
        rounds=len(slots.user_id),
        users=len(np.unique(slots.user_id)),
        users_share=slots.users_share,
        left_out=slots.left_out,
        confidence=settings.confidence,
        limits=settings.limits,
        shrinkage=settings.shrinkage,
        notes=tuple(notes),
        cells=tuple(cells),
        weights=tuple(weights),
        sessions=tuple(row for h in HORIZONS for row in session_rows(h, sums, slots.session_id, settings)),
    )


@dataclass(frozen=True)
class _Reduced:
    """What the candidate sets of N rounds come down to.

    Attributes:
        target: Per arm float64 [N], its policy's probability of the logged candidate.
        unsupported: Per arm float64 [N], its probability of candidates that the logging policy can not choose.
        expected: Per arm float64 [N, R], the reward model under its policy.
        value: float64 [N, R], the reward model at the logged candidate.
    """

    target: dict[Role, FloatArray]
    unsupported: dict[Role, FloatArray]
    expected: dict[Role, FloatArray]
    value: FloatArray


def _reduce(context: Context, held: Heldout, slots: LoggedSlots, arms: Mapping[Role, Ranker]) -> _Reduced:
    """Score the candidates of a block of rounds at a time and keep a few numbers of each round."""
    model = _reward_model(context, held, slots)
    count, rewards = len(slots.user_id), len(REWARDS)
    found = _Reduced(
        target={role: np.empty(count) for role in arms},
        unsupported={role: np.empty(count) for role in arms},
        expected={role: np.empty((count, rewards)) for role in arms},
        value=np.empty((count, rewards)),
    )
    for first in range(0, count, _BLOCK):
        context.notify(first, count, "replay")
        rows = np.arange(first, min(first + _BLOCK, count))
        part = slots.select(rows)
        pairs = distinct_pairs(held, part)
        values = model.predict(part.user_id[part.owner], reward_features(context, held, part, pairs))
        group = held.sessions["group"].to_numpy()[pairs.session]
        for role, arm in arms.items():
            scores = arm.rank(pairs.session, pairs.video, pairs.request, group)
            policy = greedy(part.candidates.offsets, scores[pairs.of_candidate])
            for r in range(rewards):
                one = rounds_over(
                    part.candidates,
                    policy,
                    np.ascontiguousarray(values[:, r]),
                    reward=part.rewards[:, r],
                    propensity=part.propensity,
                    cluster=part.user_id,
                )
                assert one.expected is not None
                assert one.value is not None
                assert one.unsupported is not None
                found.expected[role][rows, r], found.value[rows, r] = one.expected, one.value
            found.target[role][rows], found.unsupported[role][rows] = one.target, one.unsupported
    context.notify(count, count, "replayed")
    return found


def _reward_model(context: Context, held: Heldout, slots: LoggedSlots) -> RewardModel:
    """Fitted on the logged candidates, with what was known when each was shown."""
    rows = np.flatnonzero(slots.candidates.logged >= 0)
    logged = [np.empty((0, 1))] if not len(rows) else []
    for first in range(0, len(rows), _BLOCK):
        part = slots.select(rows[first : first + _BLOCK])
        logged.append(reward_features(context, held, part, distinct_pairs(held, part))[part.candidates.logged])
    seed = context.pipeline.simulator.seed
    return fit(seed, slots.user_id[rows], np.concatenate(logged), slots.rewards[rows], reward_weight(slots, rows))


def _arms(slots: LoggedSlots, reduced: _Reduced, reward: str) -> Arms:
    """Both arms' rounds with one of ``REWARDS``."""
    r = list(REWARDS).index(reward)
    modelled = not np.isnan(reduced.value[:, r]).all()
    t, b = (
        Rounds(
            cluster=slots.user_id,
            reward=slots.rewards[:, r],
            propensity=slots.propensity,
            target=reduced.target[role],
            value=reduced.value[:, r] if modelled else None,
            expected=reduced.expected[role][:, r] if modelled else None,
            unsupported=reduced.unsupported[role],
        )
        for role in ROLES
    )
    return Arms(t, b, slots.group)


def _uniform(slots: LoggedSlots, arms: Arms) -> Arms:
    """The slots that were filled uniformly from their candidates: propensity 1 / K."""
    evenly = np.where(slots.candidates.logged < 0, np.nan, 1.0 / np.diff(slots.candidates.offsets))
    t, b = (
        Rounds(one.cluster, one.reward, evenly, one.target, one.value, one.expected)
        for one in (arms.treatment, arms.baseline)
    )
    return Arms(t, b, arms.group).select(slots.is_random)


def _unit(reward: str, whole: Unit) -> Unit:
    return "s" if reward == "watch_s" else whole


def _round_cells(slots: LoggedSlots, reduced: _Reduced, settings: Settings) -> Iterator[Cell]:
    for reward in REWARDS:
        arms = _arms(slots, reduced, reward)
        yield from round_cells("logged", reward, _unit(reward, "share"), arms, settings)
        if slots.is_random.any():
            yield from round_cells("uniform", reward, _unit(reward, "share"), _uniform(slots, arms), settings)


def _session_cells(context: Context, slots: LoggedSlots, reduced: _Reduced, settings: Settings) -> Iterator[Cell]:
    for horizon in HORIZONS:
        for reward in REWARDS:
            arms = _arms(slots, reduced, reward)
            later = _later(context, slots, arms.treatment.reward, horizon)
            to_go = Arms(_to_horizon(arms.treatment, later), _to_horizon(arms.baseline, later), arms.group)
            yield from session_cells(reward, _unit(reward, "count"), horizon, to_go, slots.session_id, settings)


def _to_horizon(rounds: Rounds, later: FloatArray) -> Rounds:
    """A reward model of the slot as one of the sum to the horizon: what comes later is the same for all candidates."""
    if rounds.value is None or rounds.expected is None:
        return rounds
    return Rounds(
        cluster=rounds.cluster,
        reward=rounds.reward,
        propensity=rounds.propensity,
        target=rounds.target,
        value=rounds.value + later,
        expected=rounds.expected + later,
        unsupported=rounds.unsupported,
    )


def _later(context: Context, slots: LoggedSlots, reward: FloatArray, horizon: int | None) -> FloatArray:
    """float64 [N]: what sessions earned after the slot, up to the horizon, in the mean over users of other folds."""
    offsets = starts(slots.user_id, slots.session_id)
    place = np.arange(len(reward)) - np.repeat(offsets[:-1], np.diff(offsets))
    end = ALL_SLOTS if horizon is None else horizon
    earned = np.where(place < end, np.nan_to_num(reward), 0.0)
    total = np.repeat(np.add.reduceat(earned, offsets[:-1]), np.diff(offsets))
    before = np.cumsum(earned) - np.repeat(np.append(0.0, np.cumsum(earned))[offsets[:-1]], np.diff(offsets))
    rest = total - before
    fold = fold_of(context.pipeline.simulator.seed, slots.user_id)
    later = np.zeros(len(reward))
    for f in range(FOLDS):
        others = fold != f
        count = np.bincount(place[others], minlength=place.max() + 1)
        mean = np.bincount(place[others], rest[others], minlength=place.max() + 1) / np.maximum(count, 1)
        later[~others] = mean[place[~others]]
    return np.where(place < end, later, 0.0)
