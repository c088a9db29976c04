"""What the project is built of: licences that need a look are found, and what was not audited is not called clean."""

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components import dependencies
from components.cli import app
from components.dependencies import (
    Audit,
    Package,
    Vulnerability,
    bill_of_materials,
    first_line,
    licences,
    parse_audit,
    questionable,
    vulnerabilities,
)
from components.errors import ConfigError


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("MIT License", True),
        ("Apache-2.0", True),
        ("BSD-3-Clause AND MIT", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("LGPL-3.0-or-later", True),
        ("Artistic License; GNU General Public License (GPL)", True),
        ("MPL-2.0 OR GPL-3.0-only", True),
        ("GNU General Public License v3 (GPLv3)", False),
        ("GPL-2.0-only", False),
        ("GNU Affero General Public License v3", False),
        ("AGPL-3.0-or-later", False),
        ("UNKNOWN", False),
        ("Commercial", False),
        ("", False),
    ],
)
def test_strong_copyleft_and_unknown_licences_are_for_a_lawyer(licence: str, fine: bool) -> None:
    assert (questionable([Package("some", "1", licence)]) == []) is fine


@pytest.mark.integration
def test_every_installed_package_may_be_used() -> None:
    found = licences()
    assert {"torch", "apache-airflow", "feast"} <= {one.name for one in found}
    assert questionable(found) == []


def test_a_licence_that_only_a_file_names_is_read_from_it() -> None:
    assert "MIT" in first_line("pytest")


def test_a_package_that_was_skipped_is_not_called_clean() -> None:
    flaw = {"id": "CVE-1", "fix_versions": ["2.1"], "description": "…"}
    answer = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2.0", "vulns": [flaw]},
            {"name": "unknown", "skip_reason": "not found on PyPI"},
        ]
    }
    assert parse_audit(json.dumps(answer), "") == Audit((Vulnerability("bad", "2.0", "CVE-1", ("2.1",)),), 2, 1)
    assert parse_audit("", "WARNING\nno route to host") == Audit(reason="no route to host")
    assert parse_audit(" ", "") == Audit(reason="no answer")


def test_without_a_network_the_check_says_so_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "licences", lambda: [Package("fine", "1", "MIT")])
    monkeypatch.setattr(dependencies, "vulnerabilities", lambda: Audit(reason="no route to host"))
    done = CliRunner().invoke(app, ["dependencies", "check"])
    assert (done.exit_code, "vulnerabilities are unknown: no route to host" in done.output) == (0, True)
    monkeypatch.setattr(dependencies, "vulnerabilities", lambda: Audit(unknown=7))
    assert "knew none of the packages" in CliRunner().invoke(app, ["dependencies", "check"]).output
    flaw = Vulnerability("bad", "2.0", "CVE-1", ())
    monkeypatch.setattr(dependencies, "vulnerabilities", lambda: Audit((flaw,), 3, 1))
    done = CliRunner().invoke(app, ["dependencies", "check"])
    assert done.exit_code == 1
    assert "bad 2.0: CVE-1, mended in no version yet" in done.output
    assert "1 known vulnerabilities in 3 packages, 1 not audited" in done.output


def test_a_tool_that_hangs_or_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: object, **more: object) -> None:
        raise subprocess.TimeoutExpired("pip-audit", 1)

    lock = tmp_path / "requirements.lock"
    with pytest.raises(ConfigError, match="make lock"):
        vulnerabilities(lock)
    lock.write_text("numpy==1\n")
    monkeypatch.setattr(subprocess, "run", hang)
    assert "no answer within" in vulnerabilities(lock).reason
    monkeypatch.setattr(dependencies.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match="pip-audit is not installed"):
        vulnerabilities(lock)


@pytest.mark.integration
def test_the_bill_of_materials_names_every_pin(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==2.13.0\nfeast[duckdb]==0.67.0\n    # via nobody\n")
    document = json.loads(bill_of_materials(lock))
    assert document["bomFormat"] == "CycloneDX"
    assert {one["name"]: one["version"] for one in document["components"]} == {"torch": "2.13.0", "feast": "0.67.0"}
    assert str(tmp_path) not in json.dumps(document)
    assert bill_of_materials(lock) == bill_of_materials(lock)
    with pytest.raises(ConfigError, match="no bill of materials"):
        bill_of_materials(tmp_path / "none")
