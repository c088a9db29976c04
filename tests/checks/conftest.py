"""What the tests of the checks share: a tiny world's day, and a response model fitted on a planted log."""

from collections.abc import Iterator

import pytest

from components.checks.worlds import DESIGN, Size, WorldDay, world_day
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_fit import fit_response
from tests.simulator.conftest import Planted, one_thread, planted_log

__all__ = ["one_thread"]

TINY = Size(users=150, new_users_per_day=15, videos=120, new_videos_per_day=10, window_days=3)
# A design world: what the tests look at, no report rests on.
SEED = DESIGN + 900


@pytest.fixture(scope="session")
def day() -> Iterator[WorldDay]:
    """The tiny world as far as its held-out day."""
    with world_day(SEED, TINY) as made:
        yield made


@pytest.fixture(scope="session")
def planted_few() -> Planted:
    return planted_log(users=300)


@pytest.fixture(scope="session")
def model(planted_few: Planted) -> ResponseModel:
    """One member, quickly fitted."""
    fit = fit_response(planted_few.data, ResponseSettings(seed=3, ensemble=1, epochs=1), planted_few.scores)
    assert fit.model is not None, fit.reason
    return fit.model
