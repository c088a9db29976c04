"""The certificate's figures in a report: those of this very simulator, or why there are none."""

import json
from pathlib import Path

import pytest

from components.certified import certificate_figures
from components.checks.certificate import CERTIFICATE, simulator_hash
from components.config import SimulatorSettings
from components.errors import ConfigError

SETTINGS = SimulatorSettings()


def of_this_simulator(path: Path, **changes: object) -> Path:
    record = json.loads(CERTIFICATE.read_text(encoding="utf-8")) | {"simulator": simulator_hash(SETTINGS)} | changes
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_every_row_of_backtest_and_sensitivity_is_there(tmp_path: Path) -> None:
    path = of_this_simulator(tmp_path / "certificate.json")
    found = certificate_figures(SETTINGS, path)
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = {
        name: [r for one in record["found"] if one["rung"] == name for r in one["rows"]]
        for name in ("V2 backtest", "V6 sensitivity")
    }
    assert len(found.backtest) == len(rows["V2 backtest"]) > 0
    assert len(found.sensitivity) == len(rows["V6 sensitivity"]) > 0
    assert found.reason is None
    for cell, row in zip(found.backtest, rows["V2 backtest"], strict=True):
        assert (cell.metric, cell.segment, cell.logged, cell.simulated, cell.state) == tuple(
            row[name] for name in ("metric", "segment", "logged", "simulated", "state")
        )
    assert {cell.title for cell in found.backtest} >= {"App time per user and day", "Session depth 1"}
    for one, row in zip(found.sensitivity, rows["V6 sensitivity"], strict=True):
        assert {lift.segment: lift.app_time for lift in one.lifts} == {
            "new": row["app_time_new"],
            "all": row["app_time_all"],
        }


def test_another_simulators_certificate_gives_a_reason_and_no_figure(tmp_path: Path) -> None:
    found = certificate_figures(SETTINGS, of_this_simulator(tmp_path / "c.json", simulator="another"))
    assert "of another simulator (another" in str(found.reason)
    assert found.backtest == found.sensitivity == ()
    missing = certificate_figures(SETTINGS, tmp_path / "none.json")
    assert "mfh check all" in str(missing.reason)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    path = of_this_simulator(tmp_path / "c.json", found=[{"rung": "V2 backtest", "rows": [{}]}])
    with pytest.raises(ConfigError, match="is no certificate of this schema"):
        certificate_figures(SETTINGS, path)
