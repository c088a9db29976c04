"""Tune step: each arm's fusion weights, on the last day of the training window, under one budget for both arms.

The held-out day, which the experiment reports on, takes no part; what judges the trials is the day's response model.
"""

from dataclasses import asdict
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.arms import arms_of, configured_fusion
from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.dataset import write_sessions
from components.heldout import load_heldout, session_arrays, video_arrays
from components.respond import load_response
from components.simulate import ranking
from components.train import ROLES
from simulator.draws import uniform
from simulator.policy import Fusion, Ranker, Scorer
from simulator.session import RolloutSettings, rollout
from simulator.tuning import Guard, Trial, best, outcome_of, trial_weights

# Users whose sessions the trials are rolled out on; each trial costs a rollout of them.
USERS = 600


def tune(context: Context, day: date) -> StepResult:
    """Find both arms' fusion weights.

    Args:
        context: Pipeline (``simulator.fusion_trials``), settings, run.
        day: Interval day; bundles and response model must be in the lake.

    Returns:
        Hash of ``fusion``, the day that was used, and which trial each arm's groups took.

    Raises:
        MissingPartitionError: When something that it reads is not in the lake.
    """
    pipeline = context.pipeline
    use_threads(pipeline)
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    days = [date.fromisoformat(one) for one in record["train_days"]]
    parts = write_sessions(context, days[-1])
    held = load_heldout(context, days[-1], record["activity_threshold"])
    videos, model = video_arrays(context, held, days), load_response(context.runs.get("response", day))
    chosen = pipeline.simulator
    sessions = session_arrays(context, held, _some(held.sessions["user_id"].to_numpy(), chosen.seed))
    settings = RolloutSettings(chosen.seed, 1, chosen.max_slots)
    base = configured_fusion(context)
    weights = trial_weights(base.weights, chosen.fusion_trials, chosen.seed)
    guard = Guard(pipeline.decision.max_skip_rate_increase, pipeline.decision.max_return_loss_pp)
    taken: dict[str, dict[str, int]] = {}
    tried: dict[str, dict[str, list[Trial]]] = {}
    for done, (role, arm) in enumerate(arms_of(context, day, held.sessions, held.videos).items()):
        scorer = Remembering(arm.scorer)
        by_group: dict[str, list[Trial]] = {}
        for number, one in enumerate(weights):
            context.notify(done * len(weights) + number, len(ROLES) * len(weights), f"tune the fusion of {role}")
            # The first trial is the pipeline as written, groups of their own weights included.
            fusion = base if number == 0 else Fusion(one)
            rolled = rollout(sessions, videos, {role: ranking(Ranker(scorer, fusion), held)}, model, settings)
            for group, trial in outcome_of(one, rolled.outcomes).items():
                by_group.setdefault(group, []).append(trial)
        tried[role] = by_group
        taken[role] = {group: best(trials, guard) for group, trials in by_group.items()}
    context.notify(1, 1, "tuned")
    # A group whose best trial is the first one keeps the weights of the pipeline's file.
    arms = {
        role: {group: dict(tried[role][group][i].weights) for group, i in groups.items() if i > 0}
        for role, groups in taken.items()
    }
    trials = {
        role: {group: [asdict(one) for one in row] for group, row in groups.items()} for role, groups in tried.items()
    }
    bundles = [context.runs.get(f"model_{role}", day) for role in ROLES]
    inputs = inputs_of(training_set, *parts, context.runs.get("response", day), *bundles)
    with context.runs.write("fusion", day, pipeline.config_hash, inputs) as writer:
        writer.json("fusion.json", {"day": days[-1].isoformat(), "arms": arms, "taken": taken, "trials": trials})
    facts = {"tuned_on": days[-1].isoformat(), "trials": len(weights), "taken": taken}
    return StepResult("tune", day, inputs_of(context.runs.get("fusion", day)), facts)


def _some(user_id: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """int64: rows of the sessions of up to ``USERS`` users, chosen by a hash of their ids."""
    users = np.unique(user_id)
    luck = uniform(seed, "tuning users", users)
    return np.flatnonzero(np.isin(user_id, users[np.argsort(luck, kind="stable")[:USERS]]))


class Remembering:
    """A scorer that asks the one behind it once per (session, video): trials differ in weights, not in scores."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._keys = np.empty(0, dtype=np.int64)
        self._scores = np.empty((0, len(scorer.tasks)), dtype=np.float32)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the scorer behind it."""
        return self._scorer.tasks

    def score(
        self,
        user_index: NDArray[np.int64],
        video_index: NDArray[np.int64],
        context: pa.Table,
        group: NDArray[np.int8],
    ) -> NDArray[np.float32]:
        """``Scorer.score``; what is known of a request is the same whenever its pair is asked."""
        keys = user_index * 2**32 + video_index
        wanted, first = np.unique(keys, return_index=True)
        new = first[~np.isin(wanted, self._keys)]
        if len(new):
            found = self._scorer.score(user_index[new], video_index[new], context.take(pa.array(new)), group[new])
            joined = np.concatenate([self._keys, keys[new]])
            order = np.argsort(joined, kind="stable")
            self._keys, self._scores = joined[order], np.concatenate([self._scores, found])[order]
        return self._scores[np.searchsorted(self._keys, keys)]
