"""What rollouts ask of a response model, whichever it is."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.appeal import Predictions, WatchScale
from simulator.evidence import Evidence
from simulator.response_data import Pairs
from simulator.response_state import Centre

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Responding(Protocol):
    """What the rollouts ask; ``response.ResponseModel`` is one."""

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Interactions that it predicts."""
        ...

    @property
    def size(self) -> int:
        """Ensemble members."""
        ...

    @property
    def evidence(self) -> Evidence | None:
        """What the log says of pairs."""
        ...

    def fold(self, user_id: IntArray) -> IntArray:
        """int64 [N]: each user's fold."""
        ...

    def scales(self, member: int) -> tuple[WatchScale, ...]:
        """Constants of the watch likelihood, one per fold."""
        ...

    def centre(self, member: int) -> Centre:
        """Where a session's running averages begin."""
        ...

    def appeal(self, member: int, pairs: Pairs, evidence: FloatArray | None = None) -> Predictions:
        """Stage 1 for N pairs."""
        ...

    def user_columns(
        self,
        user_id: IntArray,
        group: NDArray[np.int8],
        newness: NDArray[np.float32],
        user_features: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """What leaving and returning depend on of users [N, C]; the next two are given it."""
        ...

    def leave_terms(
        self, member: int, fold: IntArray, group: NDArray[np.int8], user_features: NDArray[np.float32]
    ) -> tuple[FloatArray, FloatArray]:
        """Offset [N] and slopes [N, len(LEAVE_STATE)] of the logit of leaving."""
        ...

    def return_probability(
        self, member: int, fold: IntArray, group: NDArray[np.int8], day: FloatArray
    ) -> FloatArray | None:
        """Probability [N] of being active on the next day."""
        ...
