"""Simulate step: both arms serve the held-out sessions of a shard of users, until each user leaves."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

from components.arms import day_arms
from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.heldout import Heldout, load_heldout, pair_context, session_arrays, video_arrays
from components.lake import Partition
from components.respond import load_response
from components.train import ROLES
from simulator.policy import Ranker
from simulator.serving import Ranking
from simulator.session import Rollouts, RolloutSettings, bucket_of, merge, rollout, shard_buckets


def shard_dataset(shard: int, shards: int) -> str:
    """Name of the dataset that holds a shard's outcomes."""
    return f"rollouts-{shard}-of-{shards}"


def simulate(context: Context, day: date, shard: int) -> StepResult:
    """Roll out both arms over a shard's sessions.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; bundles, response model and held-out sessions must be in the lake.
        shard: Which shard of ``simulator.shards``.

    Returns:
        Hash of the outcomes, users and simulated impressions.

    Raises:
        MissingPartitionError: When something that it reads is not in the lake.
    """
    pipeline = context.pipeline
    use_threads(context.pipeline)
    record = context.runs.get("training_set", day).json("training_set.json")
    held = load_heldout(context, date.fromisoformat(record["holdout_day"]), record["activity_threshold"])
    inputs = rollout_inputs(context, day)
    model = load_response(context.runs.get("response", day))
    chosen = pipeline.simulator
    settings = RolloutSettings(chosen.seed, chosen.rollouts, chosen.max_slots, chosen.design)
    bucket = bucket_of(held.sessions["user_id"].to_numpy())
    mine = shard_buckets(shard, pipeline.simulator.shards)
    arms: dict[str, Ranking] = {
        role: ranking(arm, held) for role, arm in day_arms(context, day, held.sessions, held.videos).items()
    }
    videos = video_arrays(context, held, [date.fromisoformat(one) for one in record["train_days"]])
    parts = []
    for done, one in enumerate(mine):
        context.notify(done, len(mine), f"simulate shard {shard}")
        rows = np.flatnonzero(bucket == one)
        if len(rows):
            parts.append(rollout(session_arrays(context, held, rows), videos, arms, model, settings))
    context.notify(len(mine), len(mine), f"simulated shard {shard}")
    result = merge([Rollouts.none(), *parts])
    name = shard_dataset(shard, pipeline.simulator.shards)
    with context.runs.write(name, day, pipeline.config_hash, inputs_of(*inputs)) as writer:
        writer.table(result.outcomes, "outcomes")
        writer.table(result.depths, "depths")
        writer.table(result.creators, "creators")
    shown = result.depths["impressions"].to_numpy() * result.depths["rollouts"].to_numpy()
    facts = {"shard": shard, "outcomes": result.outcomes.num_rows, "impressions": int(shown.sum())}
    return StepResult("simulate", day, inputs_of(context.runs.get(name, day)), facts)


def rollout_inputs(context: Context, day: date) -> list[Partition]:
    """Everything that rollouts of a day are made from; analyse checks that shards were made from the same."""
    found = [context.runs.get("training_set", day), context.runs.get("response", day)]
    found += [context.runs.get(f"model_{role}", day) for role in ROLES]
    if context.pipeline.tunes_fusion:
        found.append(context.runs.get("fusion", day))
    return found


def ranking(arm: Ranker, held: Heldout) -> Ranking:
    """An arm as the rollouts ask it.

    Args:
        arm: Over the rows of ``held.sessions`` and ``held.videos``.
        held: The held-out day.

    Returns:
        A function of int64 [N] rows of sessions and of videos, giving float64 [N].
    """
    group = held.sessions["group"].to_numpy()

    def scores(session: NDArray[np.int64], video: NDArray[np.int64]) -> NDArray[np.float64]:
        users, videos, request = pair_context(held, session, video)
        return arm.rank(users, videos, request, group[session])

    return scores
