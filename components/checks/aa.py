"""Rung V1 on real rollouts: a small world's day, one policy, a thousand A/A runs of each kind."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.checks.rung import Found, Notify
from components.checks.worlds import DESIGN, Size, world_day
from components.heldout import session_arrays
from components.respond import load_response
from components.steps import run_step
from simulator import aa
from simulator.appeal import Predictions, WatchScale
from simulator.evidence import Evidence
from simulator.response import ResponseModel
from simulator.response_data import Pairs
from simulator.response_state import Centre
from simulator.session import RolloutSettings, rollout

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Fixed before the first run; a failed check is not drawn again.
WORLD_SEED, SPLIT_SEED, FLIP_SEED, STREAM_SEED = DESIGN + 501, 101, 202, 303
RUNS = 1_000
# Streams that are rolled out together.
_STREAMS = 200


@dataclass
class Repeated:
    """One member of a response model as many members: each draws its own luck, all predict the same.

    Attributes:
        model: The model.
        size: How many.
    """

    model: ResponseModel
    size: int

    def __post_init__(self) -> None:
        self._last: tuple[Pairs, Predictions] | None = None

    @property
    def behaviours(self) -> tuple[str, ...]:
        """As the model's."""
        return self.model.behaviours

    @property
    def evidence(self) -> Evidence | None:
        """As the model's."""
        return self.model.evidence

    def fold(self, user_id: IntArray) -> IntArray:
        """As the model's."""
        return self.model.fold(user_id)

    def scales(self, member: int) -> tuple[WatchScale, ...]:
        """The first member's."""
        return self.model.scales(0)

    def centre(self, member: int) -> Centre:
        """The first member's."""
        return self.model.centre(0)

    def appeal(self, member: int, pairs: Pairs, evidence: FloatArray | None = None) -> Predictions:
        """The first member's, computed once for the same pairs."""
        if self._last is None or self._last[0] is not pairs:
            self._last = (pairs, self.model.appeal(0, pairs, evidence))
        return self._last[1]

    def user_columns(
        self,
        user_id: IntArray,
        group: NDArray[np.int8],
        newness: NDArray[np.float32],
        user_features: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The model's."""
        return self.model.user_columns(user_id, group, newness, user_features)

    def leave_terms(
        self, member: int, fold: IntArray, group: NDArray[np.int8], user_features: NDArray[np.float32]
    ) -> tuple[FloatArray, FloatArray]:
        """The first member's."""
        return self.model.leave_terms(0, fold, group, user_features)

    def return_probability(
        self, member: int, fold: IntArray, group: NDArray[np.int8], day: FloatArray
    ) -> FloatArray | None:
        """The first member's."""
        return self.model.return_probability(0, fold, group, day)


def check_aa(notify: Notify, runs: int = RUNS, rollouts: int = 5, size: Size | None = None) -> Found:
    """Run all three kinds of A/A, the paired streams with ``rollouts`` rollouts per user.

    Args:
        notify: Called with (done, total, what).
        runs: Of each kind.
        rollouts: Per session, reduced to one row per user before anything is tested.
        size: Of the world.

    Returns:
        The rung.
    """
    from components.checks.arms import make_arms

    size = size or Size()
    with world_day(WORLD_SEED, size, {"rollouts": rollouts, "ensemble": 1}) as day:
        run_step(day.context, "respond", day.day)
        model = load_response(day.context.runs.get("response", day.day))
        sessions = session_arrays(day.context, day.held, np.arange(day.held.sessions.num_rows))
        arms = {name: arm.ranking for name, arm in make_arms(day, ("popularity", "user_topic")).items()}
        chosen = day.context.pipeline.simulator
        settings = RolloutSettings(chosen.seed, rollouts, chosen.max_slots)
        outcomes = rollout(sessions, day.videos, arms, model, settings).outcomes
        rows = {name: aa.rows_of(outcomes.filter(pc.equal(outcomes["arm"], name))) for name in arms}
        cells = aa.split(rows["popularity"], SPLIT_SEED, runs)
        cells += aa.flips(rows["user_topic"], rows["popularity"], FLIP_SEED, runs)

        def stream(seed: int) -> pa.Table:
            batch, member = divmod(seed - STREAM_SEED, _STREAMS)
            if batch not in made:
                made.clear()
                repeated = Repeated(model, _STREAMS)
                luck = RolloutSettings(STREAM_SEED + batch, rollouts, chosen.max_slots)
                table = rollout(sessions, day.videos, {"popularity": arms["popularity"]}, repeated, luck).outcomes
                made[batch] = table.sort_by("member")
            users = made[batch].num_rows // _STREAMS
            return made[batch].slice(member * users, users)

        made: dict[int, pa.Table] = {}
        cells += aa.streams(stream, STREAM_SEED, runs, notify=notify)
    record = aa.judge(cells)
    table: list[dict[str, Any]] = [asdict(cell) for cell in record.cells]
    config = {"world_seed": WORLD_SEED, "size": asdict(size), "runs": runs, "rollouts": rollouts, "alpha": aa.ALPHA}
    facts = {"band": [record.low, record.high]}
    return Found("V1 A/A", record.state, record.sentence, config, table, facts)
