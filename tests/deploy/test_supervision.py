"""Restarts of components: soon at first, later and later, and never after too many in a row."""

import pytest

from deploy.local.supervision import LONGEST_DELAY_S, SOUND_AFTER_S, Restarts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_component_that_keeps_ending_is_started_later_each_time() -> None:
    clock = Clock()
    restarts = Restarts(None, clock)
    delays = []
    for _ in range(8):
        assert restarts.ended()
        began = clock.now
        while not restarts.is_due():
            assert restarts.ended(), "looking again changes nothing"
            clock.now += 0.5
        delays.append(clock.now - began)
        restarts.started()
        clock.now += 5
    assert delays == [1, 2, 4, 8, 16, LONGEST_DELAY_S, LONGEST_DELAY_S, LONGEST_DELAY_S]


def test_a_component_that_ran_for_a_while_is_forgiven() -> None:
    clock = Clock()
    restarts = Restarts(2, clock)
    for _ in range(10):
        clock.now += SOUND_AFTER_S
        assert restarts.ended()
        assert restarts.in_a_row == 1
        clock.now += 1
        assert restarts.is_due()
        restarts.started()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_more_ends_in_a_row_than_the_limit_are_the_last(limit: int) -> None:
    clock = Clock()
    restarts = Restarts(limit, clock)
    for _ in range(limit):
        assert restarts.ended()
        clock.now += 60
        restarts.started()
    assert not restarts.ended()


def test_nothing_is_due_while_it_runs() -> None:
    restarts = Restarts(None, Clock())
    assert not restarts.is_due()
