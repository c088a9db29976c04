import json

import pytest

from benchmarks.offpolicy import run


def test_a_small_run_measures_and_records():
    found = run(rounds=3_000, actions=7, chunk=512, repeats=2)
    assert [claim.name for claim in found.claims] == ["simulator.ope_1e6x100_s", "simulator.ope_peak_mib"]
    assert found.claims[0].target == "< 1"
    rows = json.loads(found.json())["rows"]
    assert sum(row["what"] == "ours" for row in rows) == 2
    assert [row["seconds"] for row in rows if row.get("recorded")] == [11.0, 20.0]
    values = {row["what"]: row["value"] for row in rows if "value" in row}
    # The log's own policy is near the target's, so all but the biased ones agree.
    assert values["ips"] == pytest.approx(values["dr"], rel=0.1)
    assert values["snips"] == pytest.approx(values["sndr"], rel=0.1)
    assert all(row["reason"] is None for row in rows if "reason" in row)
