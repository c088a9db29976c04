"""The features benchmark: its figures from measurements by hand, and a run of the smallest size."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.features import Measured, _claims
from components.cli import app

CONFIG = {"repeats": 3, "impressions": 10, "history_days": 30, "requests": 10, "features": 5, "keys": 4}
EXPECTED = {
    "features.build_vs_rescan",
    "features.join_vs_file_store",
    "features.join_memory_vs_file_store",
    "features.join_vs_merge_asof",
    "features.materialize_vs_feast",
    "features.materialize_vs_feast.sqlite",
    "features.read_p99_ms",
    "features.read_p99_ms.sqlite",
    "features.read_vs_feast.sqlite",
    "features.cost_growth",
}


def measured() -> Measured:
    found = Measured()
    for value in (1.0, 2.0, 9.0):
        found.add("build", "partials", value, "s")
        found.add("build", "rescan", 10 * value, "s")
        found.add("join", "ours", value, "s")
        found.add("join", "file", 30 * value, "s")
        found.add("join", "merge_asof", 3 * value, "s")
        found.add("join", "ours", value, "bytes")
        found.add("join", "file", 2 * value, "bytes")
        found.add("materialize.sqlite", "ours", 800 * value, "rows/s")
        found.add("materialize.sqlite", "feast", 200 * value, "rows/s")
        found.add("read.sqlite", "ours", value, "ms")
        found.add("read.sqlite", "get_online_features, its store", 7 * value, "ms")
        found.add("growth", "one window", value, "s")
        found.add("growth", "two windows", 1.1 * value, "s")
    return found


def test_claims_are_ratios_of_medians_and_misses_are_said() -> None:
    claims = {claim.name: claim for claim in _claims(measured(), CONFIG)}
    assert claims.keys() == EXPECTED
    values = {name: (round(claim.value, 2), claim.holds) for name, claim in claims.items()}
    assert values["features.build_vs_rescan"] == (10.0, True)
    assert values["features.join_vs_file_store"] == (30.0, True)
    assert values["features.join_memory_vs_file_store"] == (0.5, False)
    assert values["features.materialize_vs_feast"] == (4.0, False)
    assert values["features.read_vs_feast.sqlite"] == (7.0, None)
    assert values["features.cost_growth"] == (1.1, True)
    assert values["features.read_p99_ms"][0] == pytest.approx(8.86)


def test_a_side_that_failed_leaves_its_claims_out() -> None:
    found = measured()
    found.rows = [row for row in found.rows if (row["part"], row["side"]) != ("join", "file")]
    found.add("join", "file", float("inf"), "failed", why="killed")
    names = {claim.name for claim in _claims(found, CONFIG)}
    assert EXPECTED - names == {"features.join_vs_file_store", "features.join_memory_vs_file_store"}


@pytest.mark.e2e
@pytest.mark.timeout(1_200)
def test_the_smallest_run_measures_every_claim(tmp_path: Path) -> None:
    out = tmp_path / "features.json"
    done = CliRunner().invoke(app, ["bench", "features", "--scale", "0.0001", "--repeats", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text(encoding="utf-8"))
    assert {claim["name"] for claim in record["claims"]} == EXPECTED
    assert all(claim["value"] > 0 for claim in record["claims"])
    rows = [row for row in record["rows"] if row["part"] == "join" and row["unit"] == "s"]
    # Each side joined every request, with every feature or more (merge_asof keeps times of its own).
    assert {row["rows"] for row in rows} == {record["config"]["requests"]}
    assert min(row["columns"] for row in rows) >= record["config"]["features"]
