"""The simulator's benchmark gives its claims at any size; how fast it is stands in no test."""

import numpy as np
import pytest

from benchmarks import simulator
from benchmarks.claims import Claim, record
from benchmarks.simulator import _alone, _Asked, _walks, run


@pytest.mark.parametrize("threads", [1, 3])
def test_a_few_walks_give_a_figure_per_repetition(threads: int):
    rows = _walks(sessions=50, repeats=2, threads=threads)
    # The round that loads machine code does not count.
    assert [(row["what"], row["repeat"]) for row in rows] == [("without scoring", 1), ("without scoring", 2)]
    assert all(np.isfinite(row["value"]) and row["value"] > 0 for row in rows)


def test_a_scorer_alone_is_asked_for_the_same_pairs_in_one_batch():
    batches = []

    def scores(session, video):
        batches.append((session.tolist(), video.tolist()))
        return session + 0.5 * video

    arm = _Asked(scores)
    assert arm.ranking(np.array([1, 2]), np.array([4, 6])).tolist() == [3.0, 5.0]
    arm.ranking(np.array([3]), np.array([0]))
    assert _alone(None, arm) >= 0
    assert batches[-1] == ([1, 2, 3], [4, 6, 0])
    assert len(arm.pairs) == 2


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """Parts that take no time; returns what they were asked with."""
    asked: dict[str, dict] = {}

    def part(name: str):
        def measured(**options):
            asked[name] = options
            return record({}, [Claim(f"{name}.seconds", 1.0, "s")], [{"side": name, "seconds": 1.0}])

        return measured

    def scored(size, repeats):
        asked["scored"] = {"size": size, "repeats": repeats}
        shares, pairs = (0.5, 0.9, 0.8), (10_000.0, 12_000.0, 90_000.0)
        named = (("share of the scorer", shares), ("with scoring", pairs))
        return [{"what": what, "repeat": r, "value": values[r]} for what, values in named for r in range(3)]

    monkeypatch.setattr(simulator, "_scored", scored)
    monkeypatch.setattr(simulator.bootstrap, "run", part("bootstrap"))
    monkeypatch.setattr(simulator.offpolicy, "run", part("offpolicy"))
    return asked


def test_a_small_run_gives_every_claim(parts: dict[str, dict], monkeypatch: pytest.MonkeyPatch):
    walked = [{"what": "without scoring", "repeat": r, "value": value} for r, value in enumerate((9e5, 2e6, 1.5e6))]
    monkeypatch.setattr(simulator, "_walks", lambda sessions, repeats, threads: list(walked))
    seen = []
    found = run(repeats=5, threads=2, sessions=60, notify=lambda *told: seen.append(told))
    claims = {claim.name: claim for claim in found.claims}
    assert list(claims) == [
        "simulator.impressions_s_without_scoring",
        "simulator.share_of_scorer",
        "simulator.impressions_s_with_scoring",
        "bootstrap.seconds",
        "offpolicy.seconds",
    ]
    # Medians, each held against its own target.
    assert [claim.value for claim in found.claims[:3]] == [1.5e6, 0.8, 12_000.0]
    assert [claim.holds for claim in found.claims[:3]] == [True, True, None]
    assert claims["simulator.impressions_s_with_scoring"].how == "one thread, 2.0 x RecSim"
    assert parts["bootstrap"] == {"repeats": 3, "threads": 2}
    assert parts["offpolicy"] == {"repeats": 5}
    assert parts["scored"]["repeats"] == 5
    assert len(found.rows) == 3 + 6 + 2
    assert found.config == {"repeats": 5, "threads": 2, "sessions": 60}
    assert [done for done, _, _ in seen] == [0, 1, 2, 3, 4]


def test_a_target_that_is_missed_is_said(parts: dict[str, dict], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        simulator, "_walks", lambda *told: [{"what": "without scoring", "repeat": 1, "value": 999_999.0}]
    )
    monkeypatch.setattr(simulator, "TARGET_SHARE", 0.81)
    assert [claim.holds for claim in run(repeats=1).claims[:2]] == [False, False]
