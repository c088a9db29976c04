"""Rung V4 of a day: the held-out log's first slots, by replay and by the response model that rollouts walk on.

See ``simulator.agreement`` for what is compared. The reward model of the doubly robust estimate is fitted here, on the
logged first slots (``simulator.offpolicy.regression``): it is not the response model, so that the two can disagree.
"""

from collections.abc import Mapping
from datetime import date

import numpy as np

from components.arms import day_arms
from components.compute import use_threads
from components.context import Context
from components.heldout import Heldout, load_heldout, session_arrays, video_arrays
from components.logged import REWARDS, LoggedSlots, distinct_pairs, logged_slots
from components.respond import load_response
from components.reward_features import reward_features, reward_weight
from components.train import ROLES, Role
from simulator.agreement import Agreement, FirstSlots, compare, missing
from simulator.appeal import Predictions, WatchScale, expected_share
from simulator.offpolicy import greedy, rounds_over
from simulator.offpolicy.regression import fit
from simulator.offpolicy.rounds import FloatArray, IntArray
from simulator.policy import Ranker
from simulator.responding import Responding
from simulator.response_data import Pairs
from simulator.result import Unit

# Candidates of all first slots at most; beyond, users are thinned.
PAIRS = 300_000

# Sessions whose candidates are predicted at once.
_BLOCK = 4_096

# What is compared, and its unit.
COMPARED: Mapping[str, Unit] = {"watch_s": "s", "skip": "share"}


def agreement(context: Context, day: date) -> Agreement:
    """Hold the day's rollouts against its log, where both can speak.

    Args:
        context: Pipeline and settings.
        day: Interval day; bundles, response model and held-out sessions must be in the lake.

    Returns:
        The record; it says so where the feed logs no candidate sets.

    Raises:
        MissingPartitionError: When something that it reads is not in the lake.
    """
    use_threads(context.pipeline)
    record = context.runs.get("training_set", day).json("training_set.json")
    held_day = date.fromisoformat(record["holdout_day"])
    if context.data.find("requests", held_day) is None:
        return missing(held_day.isoformat(), "The feed logs no candidate sets, so replay and rollouts share no slot.")
    held = load_heldout(context, held_day, record["activity_threshold"])
    slots = logged_slots(context, held, held_day, PAIRS, first=1)
    if isinstance(slots, str):
        return missing(held_day.isoformat(), f"No first slot can be compared: {slots}.")
    arms = day_arms(context, day, held.sessions, held.videos)
    return agree(context, held_day, held, slots, arms, load_response(context.runs.get("response", day)))


def agree(
    context: Context,
    day: date,
    held: Heldout,
    slots: LoggedSlots,
    arms: Mapping[Role, Ranker],
    model: Responding,
) -> Agreement:
    """Compare both arms' difference in first slots.

    Args:
        context: Pipeline and settings.
        day: The held-out day.
        held: Its sessions and videos.
        slots: The first slot of each session.
        arms: Both, over the rows of ``held``.
        model: The response model of the rollouts.

    Returns:
        The record.
    """
    rewards = _rewards(context, slots)
    policies, values = _choices(context, held, slots, arms, rewards)
    expected = _expected(context, held, slots, model)
    apart = policies["treatment"] - policies["baseline"]
    compared = {}
    for r, (name, unit) in enumerate(COMPARED.items()):
        value = np.ascontiguousarray(values[:, r]) if np.isfinite(values[:, r]).all() else None
        t, b = (
            rounds_over(
                slots.candidates,
                policies[role],
                value,
                reward=rewards[:, r],
                propensity=slots.propensity,
                cluster=slots.user_id,
            )
            for role in ROLES
        )
        predicted = np.add.reduceat(apart * expected[:, r], slots.candidates.offsets[:-1])
        compared[name] = FirstSlots(t, b, predicted, slots.group, unit)
    confidence = context.pipeline.decision.confidence
    return compare(day.isoformat(), compared, confidence=confidence, users_share=slots.users_share)


def _rewards(context: Context, slots: LoggedSlots) -> FloatArray:
    """float64 [N, len(COMPARED)]: seconds, and a skip by the rule of the response model."""
    seconds = slots.rewards[:, list(REWARDS).index("watch_s")]
    skipped = np.where(np.isnan(seconds), np.nan, seconds < context.pipeline.feed.skip_below_ms / 1000)
    return np.column_stack([seconds, skipped])


def _choices(
    context: Context, held: Heldout, slots: LoggedSlots, arms: Mapping[Role, Ranker], rewards: FloatArray
) -> tuple[dict[Role, FloatArray], FloatArray]:
    """Both arms' probabilities of every candidate, and the log's own reward model, float64 [M, len(COMPARED)]."""
    pairs = distinct_pairs(held, slots)
    group = held.sessions["group"].to_numpy()[pairs.session]
    policies = {}
    for role, arm in arms.items():
        scores = arm.rank(pairs.session, pairs.video, pairs.request, group)
        policies[role] = greedy(slots.candidates.offsets, scores[pairs.of_candidate])
    features = reward_features(context, held, slots, pairs)
    rows = np.flatnonzero(slots.candidates.logged >= 0)
    logged = features[slots.candidates.logged[rows]]
    seed = context.pipeline.simulator.seed
    model = fit(seed, slots.user_id[rows], logged, rewards[rows], reward_weight(slots, rows))
    return policies, model.predict(slots.user_id[slots.owner], features)


def _expected(context: Context, held: Heldout, slots: LoggedSlots, model: Responding) -> FloatArray:
    """float64 [M, len(COMPARED)]: what the response model expects of every candidate, in the mean of its members."""
    videos = video_arrays(context, held, [])
    version = held.sessions["version"].to_numpy().astype(np.int64)
    found = np.empty((len(slots.candidates.ids), len(COMPARED)))
    for first in range(0, len(slots.user_id), _BLOCK):
        part = slice(first, first + _BLOCK)
        rows = slots.session_row[part]
        sessions = session_arrays(context, held, rows)
        begin, end = slots.candidates.offsets[first], slots.candidates.offsets[first + len(rows)]
        at = slots.owner[begin:end] - first
        video = slots.candidates.ids[begin:end] + version[rows[at]] * len(held.ids)
        # Nothing stands before a first slot, so no topic is repeated.
        pairs = sessions.pairs(videos, at, video, np.zeros(len(at), dtype=np.float32))
        evidence = None if model.evidence is None else model.evidence.features(pairs)
        fold = model.fold(pairs.user_id)
        members = [_outcome(model.appeal(m, pairs, evidence), model.scales(m), fold, pairs) for m in range(model.size)]
        found[begin:end] = np.mean(members, axis=0)
    return found


def _outcome(predicted: Predictions, scales: tuple[WatchScale, ...], fold: IntArray, pairs: Pairs) -> FloatArray:
    """float64 [M, len(COMPARED)]: expected seconds, as a walker draws them, and the probability of a skip."""
    seconds = np.empty(len(fold))
    for f, scale in enumerate(scales):
        mine = fold == f
        share = expected_share(predicted.log_share[mine], predicted.log_share_sd[mine], scale.cap_share)
        duration = scale.duration(pairs.duration_s[mine])
        kept = share * duration * scale.level(pairs.group[mine], duration)
        seconds[mine] = predicted.skip[mine] * scale.skip_s + (1 - predicted.skip[mine]) * kept
    return np.column_stack([seconds, predicted.skip])
