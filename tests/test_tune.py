"""The tune step on a tiny world: one budget for both arms, and everything that serves them follows it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.arms import configured_fusion, day_fusions
from components.checks.worlds import DESIGN, Size, world_day
from components.config import parse_pipeline
from components.errors import ConfigError, MissingPartitionError
from components.simulate import shard_dataset
from components.steps import BY_NAME, run_step
from components.tune import Remembering
from tests.small_lake import context_at

TINY = Size(users=150, new_users_per_day=15, videos=120, new_videos_per_day=10, window_days=3)
QUICK = {"fusion_trials": 3, "ensemble": 1, "epochs": 1, "rollouts": 1, "shards": 1, "max_slots": 10}


@pytest.mark.integration
def test_both_arms_get_the_same_trials_and_are_served_by_what_they_took() -> None:
    with world_day(DESIGN + 901, TINY, QUICK) as made:
        context, day = made.context, made.day
        for name in ("respond", "train_treatment", "train_baseline"):
            run_step(context, name, day)
        with pytest.raises(MissingPartitionError, match="fusion"):
            run_step(context, "simulate", day)
        (result,) = run_step(context, "tune", day)
        found = context.runs.get("fusion", day).json("fusion.json")
        record = context.runs.get("training_set", day).json("training_set.json")
        assert found["day"] == record["train_days"][-1] < record["holdout_day"]
        tried = {
            role: {group: [one["weights"] for one in trials] for group, trials in groups.items()}
            for role, groups in found["trials"].items()
        }
        assert tried["treatment"] == tried["baseline"]
        assert all(len(weights) == 3 for weights in tried["treatment"].values())
        fusions = day_fusions(context, day)
        for role, groups in found["taken"].items():
            base = configured_fusion(context).weights
            for code, group in enumerate(("new", "low", "high")):
                served = fusions[role].by_group.get(code, base)
                assert served == tried[role][group][groups[group]] or groups[group] == 0
        run_step(context, "simulate", day)
        rolled = context.runs.get(shard_dataset(0, 1), day)
        assert any(name.startswith("fusion/") for name in rolled.manifest.inputs)
        run_step(context, "replay", day)
        assert run_step(context, "tune", day)[0].outputs == result.outputs


def test_a_pipeline_without_trials_has_no_such_step_and_its_own_weights(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    assert not BY_NAME["tune"].is_part_of(context.pipeline)
    data = json.loads(context.pipeline.model_dump_json())
    data["simulator"]["fusion_by_group"] = {"new": {"like": 2.0}}
    chosen = parse_pipeline(data, "test")
    fusion = configured_fusion(
        context_at(tmp_path / "own", **{"simulator": {"fusion_by_group": {"new": {"like": 2.0}}}})
    )
    assert fusion.by_group == {0: {"like": 2.0}}
    assert chosen.config_hash != context.pipeline.config_hash
    data["simulator"]["fusion_by_group"] = {"new": {"click": 2.0}}
    with pytest.raises(ConfigError, match="not trained"):
        parse_pipeline(data, "test")


class Counting:
    """Scores a pair by its ids, and counts what it is asked."""

    tasks = ("like", "skip")

    def __init__(self) -> None:
        self.asked = 0

    def score(self, user_index, video_index, context, group):
        self.asked += len(user_index)
        return np.column_stack([user_index + video_index / 10, context["hour"].to_numpy()]).astype(np.float32)


def test_a_pair_is_scored_once_and_comes_back_in_the_order_asked() -> None:
    counting = Counting()
    scorer = Remembering(counting)
    for order in ([3, 1, 3, 0], [0, 1, 2, 3], [2, 2]):
        user = np.array(order, dtype=np.int64)
        found = scorer.score(user, user * 2, pa.table({"hour": user * 5}), np.zeros(len(user), np.int8))
        assert found == pytest.approx(np.column_stack([user * 1.2, user * 5]))
    assert counting.asked == 4
