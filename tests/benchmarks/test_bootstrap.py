"""The bootstrap's benchmark gives its claims at any size; how fast it is stands in no test."""

from benchmarks.bootstrap import run


def test_a_small_run_gives_every_claim() -> None:
    seen: list[tuple[int, int]] = []
    result = run(
        users=2_000, resamples=200, repeats=2, threads=1, notify=lambda done, total, what: seen.append((done, total))
    )
    assert {claim.name for claim in result.claims} == {
        "bootstrap.seconds",
        "bootstrap.over_scipy",
        "bootstrap.over_recorded_scipy",
        "bootstrap.over_recorded_c",
        "bootstrap.extra_memory",
        "bootstrap.agrees",
    }
    assert [(row["side"], row["resamples"]) for row in result.rows] == [("ours", 200), ("scipy", 20)] * 2
    assert seen == [(0, 2), (1, 2), (2, 2)]
    agrees = next(claim for claim in result.claims if claim.name == "bootstrap.agrees")
    assert 0.8 < agrees.value < 1.2
