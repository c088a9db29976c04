"""The world's benchmark gives its claims at any size; how fast it is stands in no test."""

import pytest

from benchmarks.world import run


def test_a_small_run_gives_every_claim(tmp_path) -> None:
    result = run(impressions=5_000, largest=20_000, days=2, repeats=1, folder=tmp_path)
    claims = {claim.name: claim for claim in result.claims}
    assert set(claims) == {
        "world.written_per_s",
        "world.one_worker_per_s",
        "world.peak_memory",
        "world.memory_growth",
        "world.cpu_per_impression",
        "world.bytes_per_impression",
        "world.outcomes_s",
    }
    assert claims["world.peak_memory"].holds is None, "no claim about 100 million impressions from 20 thousand"
    assert [row["workers"] for row in result.rows] == [1, 2, 2]
    assert result.rows[0]["impressions"] == result.rows[1]["impressions"] < result.rows[2]["impressions"]
    assert not list(tmp_path.iterdir()), "nothing stays behind"


def test_a_size_that_the_disk_can_not_hold_is_refused(tmp_path) -> None:
    with pytest.raises(OSError, match="bytes of disk"):
        run(largest=10**15, folder=tmp_path)
