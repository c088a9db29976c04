import json
from dataclasses import asdict

import pytest

from benchmarks.claims import Claim, publish, record


def example():
    claims = [
        Claim("speed.up", 2.5, "times", 2.0, 3.0, ">= 2", True, "as told"),
        Claim("speed.down", 0.1, "s", target="<= 0.05", holds=False),
    ]
    return record({"seeds": 2}, claims, [{"what": "a", "value": None}, {"what": "b", "value": 1.5}])


def test_the_text_of_a_record_is_the_record():
    result = example()
    assert json.loads(result.json()) == json.loads(json.dumps(asdict(result)))
    # A line for each claim and row, so that a change of one is seen.
    assert result.json().count("\n") > 4
    assert '{"what": "b", "value": 1.5}' in result.json().splitlines()


def test_a_record_names_machine_versions_and_commit():
    result = example()
    assert "cores" in result.machine
    assert {"python", "torch", "numpy", "pyarrow"} <= set(result.versions)
    assert len(result.commit.split()[0]) == 40


def test_publishing_prints_what_holds_and_what_is_missed(tmp_path, capsys: pytest.CaptureFixture[str]):
    publish(example(), str(tmp_path / "out.json"))
    shown = capsys.readouterr().out
    assert "speed.up" in shown
    assert "[2, 3]" in shown
    assert "MISSED" in shown
    assert shown.count("as told") == 1
    assert json.loads((tmp_path / "out.json").read_text())["claims"][1]["holds"] is False
    publish(example(), "-")
    assert json.loads(capsys.readouterr().out)["config"] == {"seeds": 2}
