"""``mfh check``: what it prints and writes, its exit status, and the certificate from single records."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.checks import aa, agreements, backtests, reference, sensitivity, truth
from components.checks.certificate import cited, simulator_hash
from components.checks.rung import Found
from components.cli import app, main
from components.config import SimulatorSettings
from simulator.decision import QUESTIONS

MINE = simulator_hash(SimulatorSettings())


@pytest.fixture
def open_bandit(test_data: Path) -> Path:
    return test_data / "open_bandit"


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int | str | None, str]:
    """Exit status of ``mfh check`` with these arguments, and what it wrote on standard error."""
    monkeypatch.setattr(sys, "argv", ["mfh", "check", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


def found(rung: str, state: str = "passed") -> Found:
    return Found(rung, state, f"Said of {rung}.", {"size": 1}, [{"row": 1}])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """Checks that answer at once; returns what each was asked with."""
    asked: dict[str, tuple] = {}

    def put(module, name: str, rung: str, state: str = "passed", *, many: bool = False):
        def check(*arguments):
            asked[name] = arguments[1:] if callable(arguments[0]) else arguments
            return [found(rung, state)] if many else found(rung, state)

        monkeypatch.setattr(module, name, check)

    put(aa, "check_aa", "V1 A/A")
    put(backtests, "backtests", "V2 backtest", "failed", many=True)
    put(truth, "check_truth", "V3 known truth")
    put(agreements, "check_agreement", "V4 agreement", "not powered")
    put(reference, "check_reference", "V5 reference")
    put(sensitivity, "check_sensitivity", "V6 sensitivity")
    return asked


def test_reference_passes_on_the_open_bandit_files_and_can_be_certified(open_bandit: Path, tmp_path: Path) -> None:
    record, certificate = tmp_path / "records" / "v5.json", tmp_path / "certificate.json"
    line = ["check", "reference", "--data", str(open_bandit), "--reference", str(open_bandit / "reference.json")]
    done = CliRunner().invoke(app, [*line, "--json", str(record)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("V5 reference: passed. all ")
    written = json.loads(record.read_text(encoding="utf-8"))
    assert written["simulator"] == MINE
    assert "cores" in written["machine"]
    assert {"numpy", "numba", "torch", "scipy"} <= set(written["versions"])
    (one,) = written["found"]
    assert (one["rung"], one["state"]) == ("V5 reference", "passed")
    assert one["facts"]["max_difference"] < 1e-9
    assert len(one["rows"]) > 20

    done = CliRunner().invoke(app, ["check", "certify", str(record), "--json", str(certificate)])
    assert done.exit_code == 0, done.output
    assert "V1 A/A: missing. This check was not run." in done.output
    states = {rung.name: rung.state for rung in cited(SimulatorSettings(), certificate)}
    assert states == dict.fromkeys(QUESTIONS, "missing") | {"V5 reference": "passed"}


def test_a_reference_that_differs_fails(open_bandit: Path, tmp_path: Path) -> None:
    numbers = json.loads((open_bandit / "reference.json").read_text(encoding="utf-8"))
    section = next(name for name, value in numbers.items() if "->" in name and isinstance(value, dict))
    numbers[section] = {name: value * 1.001 for name, value in numbers[section].items()}
    wrong = tmp_path / "reference.json"
    wrong.write_text(json.dumps(numbers), encoding="utf-8")
    done = CliRunner().invoke(app, ["check", "reference", "--data", str(open_bandit), "--reference", str(wrong)])
    assert done.exit_code == 1
    assert "V5 reference: failed." in done.output


def test_a_folder_without_the_files_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "v5.json"
    status, said = told(
        monkeypatch, capsys, "reference", "--data", str(tmp_path), "--reference", "none.json", "--json", str(out)
    )
    assert status == 1
    assert said.startswith("SourceError: ")
    assert "random_*.parquet" in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_record_of_another_simulator_is_not_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, out = tmp_path / "v1.json", tmp_path / "certificate.json"
    record.write_text(json.dumps({"simulator": "0123456789ab", "found": [found("V1 A/A").record()]}), encoding="utf-8")
    status, said = told(monkeypatch, capsys, "certify", str(record), "--json", str(out))
    assert status == 1
    assert said.startswith("ConfigError: ")
    assert [word for word in (str(record), "0123456789ab", MINE) if word not in said] == []
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "name", "asked", "status"),
    [
        (["aa"], "check_aa", (1_000,), 0),
        (["aa", "--runs", "100"], "check_aa", (100,), 0),
        (["backtest"], "backtests", (None,), 1),
        (["backtest", "--kuairand", "edition"], "backtests", (Path("edition"),), 1),
        (["truth"], "check_truth", (100, 24, 2), 0),
        (["truth", "--worlds", "3", "--calibration", "0", "--workers", "1"], "check_truth", (3, 0, 1), 0),
        (["agreement", "--worlds", "4"], "check_agreement", (4,), 0),
        (["reference", "--data", "d", "--reference", "r"], "check_reference", (Path("d"), Path("r")), 0),
        (["sensitivity"], "check_sensitivity", (), 0),
    ],
)
def test_a_check_is_asked_as_told_and_only_a_failed_one_ends_with_1(
    quick: dict, arguments: list[str], name: str, asked: tuple, status: int
) -> None:
    done = CliRunner().invoke(app, ["check", *arguments])
    assert done.exit_code == status, done.output
    assert quick == {name: asked}
    assert "Said of V" in done.output


def test_the_record_alone_goes_to_standard_output(quick: dict) -> None:
    done = CliRunner().invoke(app, ["check", "agreement", "--json", "-"])
    assert json.loads(done.stdout)["found"] == [found("V4 agreement", "not powered").record()]
    assert done.stderr.strip() == "V4 agreement: not powered. Said of V4 agreement."


def test_all_writes_the_certificate_that_reports_cite(quick: dict, tmp_path: Path) -> None:
    out = tmp_path / "results" / "certificate.json"
    done = CliRunner().invoke(app, ["check", "all", "--worlds", "40", "--runs", "200", "--json", str(out)])
    assert done.exit_code == 1, "the backtest failed"
    assert (quick["check_truth"], quick["check_aa"], quick["check_agreement"]) == ((40, 24, 2), (200,), (2,))
    rungs = {rung.name: rung for rung in cited(SimulatorSettings(), out)}
    assert [rung.state for rung in rungs.values()] == [
        "passed",
        "failed",
        "passed",
        "not powered",
        "missing",
        "passed",
    ]
    assert [line.split(":")[0] for line in done.output.splitlines()] == list(QUESTIONS)
    assert f"certificate {MINE}" in rungs["V6 sensitivity"].detail


def test_all_climbs_v5_where_the_open_bandit_files_are(quick: dict, tmp_path: Path) -> None:
    line = ["check", "all", "--open-bandit", "bandit", "--kuairand", "edition", "--worlds", "2"]
    done = CliRunner().invoke(app, [*line, "--json", str(tmp_path / "certificate.json")])
    assert "V5 reference: passed" in done.output
    assert quick["check_reference"] == (Path("bandit"), Path("bandit/reference.json"))
    assert quick["backtests"] == (Path("edition"),)
    # Fewer than two worlds agree by themselves.
    assert quick["check_agreement"] == (2,)


@pytest.mark.parametrize(
    "arguments",
    [
        ["truth", "--worlds", "1"],
        ["aa", "--runs", "99"],
        ["truth", "--workers", "0"],
        ["certify"],
        ["reference"],
        ["v7"],
    ],
)
def test_a_malformed_line_is_a_usage_error(quick: dict, arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["check", *arguments]).exit_code == 2
    assert quick == {}
