"""The doctor finds what is wrong on a machine and says how to mend it."""

import socket
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from components import doctor
from components.config import FilesFeed, KuaiRandFeed, Pipeline, Settings, TableMapping, WorldFeed
from components.doctor import Check, check_data, check_disk, check_lake, check_packages, check_port, checkup, read_pins

FIRST = date(2022, 4, 25)


def kuairand(folder: Path) -> Pipeline:
    return Pipeline(name="demo", feed=KuaiRandFeed(folder=str(folder), first_day=FIRST))


def test_a_right_machine_has_nothing_to_mend(free_port: Callable[[], int]) -> None:
    pipeline = Pipeline(name="demo", feed=WorldFeed(first_day=FIRST))
    findings = checkup(Settings(), pipeline, free_port())
    assert [finding.name for finding in findings if finding.ok is False] == []
    assert {"python", "packages", "disk", "home", "lake", "pipeline", "data", "port", "airflow", "gpu"} <= {
        finding.name for finding in findings
    }
    assert all(finding.detail for finding in findings)


def test_without_a_pipeline_its_data_is_not_looked_for(free_port: Callable[[], int]) -> None:
    findings = {finding.name: finding for finding in checkup(Settings(), None, free_port())}
    assert findings["pipeline"].ok is None
    assert "mfh init" in findings["pipeline"].mend
    assert "data" not in findings


def test_whatever_is_wrong_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    monkeypatch.setattr(doctor, "MIN_PYTHON", (9, 0))
    (tmp_path / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        findings = checkup(Settings(home=tmp_path / "file" / "home"), kuairand(tmp_path / "none"), port)
    wrong = {finding.name: finding for finding in findings if finding.ok is False}
    assert set(wrong) == {"python", "disk", "home", "lake", "data", "port"}
    assert all(finding.mend for finding in wrong.values())
    assert f"PORT={port + 1}" in wrong["port"].mend


def test_pins_are_read_and_local_suffixes_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# comment\nTorch==2.13.0\n    # via x\nfeast[duckdb]==0.67.0 ; python_version > '3'\nnumpy==2.4.6\n"
    )
    assert read_pins(lock) == {"torch": "2.13.0", "feast": "0.67.0", "numpy": "2.4.6"}
    monkeypatch.setattr(doctor, "WATCHED", ("torch", "feast", "no-such-package"))
    monkeypatch.setattr(doctor, "version", _versions({"torch": "2.13.0+cpu", "feast": "0.66.0"}))
    summary, *wrong = check_packages(lock)
    assert summary == Check("packages", True, "torch 2.13.0+cpu (as in requirements.lock)")
    assert [(finding.name, finding.ok) for finding in wrong] == [("feast", False), ("no-such-package", False)]
    assert wrong[0].detail == "0.66.0, the lock has 0.67.0"


def _versions(known: dict[str, str]) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in known:
            raise doctor.PackageNotFoundError(name)
        return known[name]

    return version


def test_without_a_lock_versions_are_only_shown(tmp_path: Path) -> None:
    (summary,) = check_packages(tmp_path / "none")
    assert summary.ok is None
    assert "no requirements.lock" in summary.detail


def test_the_lake_is_left_as_it_was_found(mfh_home: Path) -> None:
    assert check_lake(Settings()).ok
    assert list((mfh_home / "lake").iterdir()) == []


def test_data_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    assert "is not a folder" in check_data(kuairand(tmp_path / "none")).detail
    assert "holds no CSV or Parquet file" in check_data(kuairand(tmp_path)).detail
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log.csv").write_text("a\n1\n")
    found = check_data(kuairand(tmp_path))
    assert found.ok
    assert found.detail.startswith("1 files")
    mapping = TableMapping(path="*.csv", columns={})
    own = Pipeline(name="own", feed=FilesFeed(folder=str(tmp_path), first_day=FIRST, log=mapping))
    assert check_data(own).ok


def test_disk_and_port_are_looked_at_without_making_anything(mfh_home: Path, free_port: Callable[[], int]) -> None:
    assert check_disk(mfh_home / "deep" / "below").ok
    assert check_port(free_port()).ok
    assert not mfh_home.exists()
