"""The certificate speaks of one simulator only: its hash, what it cites, and how several records become one."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.checks import certificate
from components.checks.certificate import _code_of, _joined, cited, read_records, simulator_hash, write
from components.checks.rung import Found
from components.config import SimulatorSettings
from components.errors import ConfigError
from simulator.decision import QUESTIONS

SETTINGS = SimulatorSettings()
CODE = '''"""What this is."""

# Why it is.
STEP = 2


def walk(start: int) -> int:
    """One step on."""
    return start + STEP
'''
FOUND = Found("V1 A/A", "passed", "Eight of eight cells.", {"runs": 1000}, [{"cell": 1}], {"band": [29, 74]})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one file and one folder, all of which the certificate speaks of."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "folder" / "two.py").write_text("LIMIT = 3\n", encoding="utf-8")
    monkeypatch.setattr(certificate, "ROOT", tmp_path)
    monkeypatch.setattr(certificate, "_CODE", ("one.py", "folder"))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        CODE.replace("# Why it is.", "# Another reason."),
        CODE.replace('"""What this is."""\n', ""),
        CODE.replace("One step on.", "A step further."),
        CODE.replace("start + STEP", "(start +\n            STEP)"),
        CODE.replace("\n\n\n", "\n\n"),
    ],
)
def test_what_does_not_run_does_not_count(tree: Path, text: str) -> None:
    before = simulator_hash(SETTINGS)
    assert text != CODE
    (tree / "one.py").write_text(text, encoding="utf-8")
    assert simulator_hash(SETTINGS) == before


@pytest.mark.parametrize(
    "text",
    [
        CODE.replace("STEP = 2", "STEP = 3"),
        CODE.replace("start + STEP", "start - STEP"),
        CODE.replace("return start", "print('a word')\n    return start"),
        CODE + "\n\nwalk(1)\n",
    ],
)
def test_what_runs_counts(tree: Path, text: str) -> None:
    before = simulator_hash(SETTINGS)
    (tree / "one.py").write_text(text, encoding="utf-8")
    assert simulator_hash(SETTINGS) != before


def test_every_file_of_a_folder_counts_and_its_name_too(tree: Path) -> None:
    seen = [simulator_hash(SETTINGS)]
    two, three = (tree / "folder" / name for name in ("two.py", "three.py"))
    three.write_text("", encoding="utf-8")
    seen.append(simulator_hash(SETTINGS))
    three.unlink()
    two.rename(three)
    seen.append(simulator_hash(SETTINGS))
    assert len(set(seen)) == 3
    (tree / "folder" / "notes.txt").write_text("nothing that runs", encoding="utf-8")
    (tree / "other.py").write_text("LIMIT = 4\n", encoding="utf-8")
    assert simulator_hash(SETTINGS) == seen[-1]


def test_settings_that_numbers_depend_on_count_and_others_do_not() -> None:
    mine = simulator_hash(SETTINGS)
    assert len(mine) == 12
    for name, value in (("ensemble", 5), ("rollouts", 3), ("max_slots", 50), ("response_rows", 10), ("candidates", 9)):
        assert simulator_hash(SETTINGS.model_copy(update={name: value})) != mine, name
    # How the work is cut and which luck is drawn is not what the simulator is.
    for name, value in (("shards", 5), ("seed", 12)):
        assert simulator_hash(SETTINGS.model_copy(update={name: value})) == mine, name


def test_a_body_of_words_alone_is_left_empty() -> None:
    words = 'def later():\n    """To be written."""\n\n\nclass Error(Exception):\n    """Something went wrong."""\n'
    bare = "def later():\n    pass\n\n\nclass Error(Exception):\n    pass\n"
    assert _code_of(words) == _code_of(bare)
    # A string that is no docstring is code.
    assert _code_of("x = 1\n'a'\n") != _code_of("x = 1\n")


def test_every_file_that_the_hash_covers_is_there() -> None:
    covered = [certificate.ROOT / name for name in certificate._CODE]
    assert [path for path in covered if not path.exists()] == []
    assert [name for name in certificate._SETTINGS if name not in SimulatorSettings.model_fields] == []


def test_without_a_certificate_all_rungs_are_missing_and_say_how_to_get_one(tmp_path: Path) -> None:
    rungs = cited(SETTINGS, tmp_path / "none.json")
    assert [rung.name for rung in rungs] == list(QUESTIONS)
    assert {rung.state for rung in rungs} == {"missing"}
    assert all("mfh check all" in rung.detail for rung in rungs)


def test_a_certificate_of_another_simulator_is_not_cited_and_both_are_named(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    theirs = write([FOUND], SETTINGS, {}, path)["simulator"]
    other = SETTINGS.model_copy(update={"rollouts": 5})
    rungs = cited(other, path)
    assert {rung.state for rung in rungs} == {"missing"}
    for word in (theirs, simulator_hash(other), "mfh check all"):
        assert word in rungs[0].detail


def test_a_certificate_of_this_simulator_is_cited(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "certificate.json"
    second = replace(FOUND, rung="V3 known truth", state="failed", sentence="Missed for returning.")
    record = write([FOUND, second], SETTINGS, {"machine": "two cores"}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == record
    assert record["machine"] == "two cores"
    assert record["settings"]["rollouts"] == SETTINGS.rollouts
    rungs = {rung.name: rung for rung in cited(SETTINGS, path)}
    assert list(rungs) == list(QUESTIONS)
    assert rungs["V1 A/A"].state == "passed"
    assert rungs["V1 A/A"].question == QUESTIONS["V1 A/A"]
    assert rungs["V1 A/A"].detail == f"Eight of eight cells. (certificate {record['simulator']})"
    assert (rungs["V3 known truth"].state, rungs["V2 backtest"].state) == ("failed", "missing")
    assert "was not run" in rungs["V2 backtest"].detail


def damaged(record: dict, how: str) -> str:
    mine = {"simulator": simulator_hash(SETTINGS)}
    odd = [one | {"state": "fine"} for one in record["rungs"]]
    texts = {
        "no JSON": "{",
        "no object": "[1]",
        "no hash": json.dumps({"rungs": []}),
        "no rungs": json.dumps(mine),
        "a rung too few": json.dumps(mine | {"rungs": record["rungs"][1:]}),
        "an unknown state": json.dumps(mine | {"rungs": odd}),
    }
    return texts[how]


@pytest.mark.parametrize("how", ["no JSON", "no object", "no hash", "no rungs", "a rung too few", "an unknown state"])
def test_a_damaged_certificate_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(damaged(write([FOUND], SETTINGS, {}, path), how), encoding="utf-8")
    with pytest.raises(ConfigError, match="mfh check all") as caught:
        cited(SETTINGS, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("states", "joined"),
    [
        ([], "missing"),
        (["passed"], "passed"),
        (["passed", "failed"], "failed"),
        (["failed", "not powered", "missing"], "failed"),
        (["not powered", "passed"], "passed"),
        (["missing", "passed"], "passed"),
        (["not powered", "not powered"], "not powered"),
        (["not powered", "missing"], "missing"),
    ],
)
def test_several_records_of_a_rung_become_one(states: list, joined: str) -> None:
    found = [replace(FOUND, state=state, sentence=f"Sentence {i}.") for i, state in enumerate(states)]
    one = _joined(found)
    assert one["state"] == joined
    assert [i for i in range(len(states)) if f"Sentence {i}." not in one["sentence"]] == []


def record_of(found: list[Found], simulator: str) -> str:
    return json.dumps({"simulator": simulator, "machine": "any", "found": [one.record() for one in found]})


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    second = replace(FOUND, rung="V2 backtest", state="not powered", facts={})
    paths = [tmp_path / "aa.json", tmp_path / "backtest.json"]
    for path, one in zip(paths, (FOUND, second), strict=True):
        path.write_text(record_of([one], simulator_hash(SETTINGS)), encoding="utf-8")
    found = read_records(paths, SETTINGS)
    assert found == [FOUND, second]
    states = {one["rung"]: one["state"] for one in write(found, SETTINGS, {}, tmp_path / "all.json")["rungs"]}
    assert (states["V1 A/A"], states["V2 backtest"], states["V6 sensitivity"]) == ("passed", "not powered", "missing")


def test_a_certificate_is_a_record_too(tmp_path: Path) -> None:
    write([FOUND], SETTINGS, {}, tmp_path / "certificate.json")
    assert read_records([tmp_path / "certificate.json"], SETTINGS) == [FOUND]


def test_records_of_another_simulator_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "aa.json"
    path.write_text(record_of([FOUND], "0123456789ab"), encoding="utf-8")
    with pytest.raises(ConfigError, match="another simulator") as caught:
        read_records([path], SETTINGS)
    for word in (str(path), "0123456789ab", simulator_hash(SETTINGS)):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"simulator": "a"}', '{"simulator": "a", "found": [{"rung": "V1"}]}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "aa.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="no record of a check"):
        read_records([path], SETTINGS)
    with pytest.raises(ConfigError, match="no record of a check"):
        read_records([tmp_path / "none.json"], SETTINGS)


def test_what_this_project_ships_can_be_cited() -> None:
    """With or without a certificate, and of whichever simulator it is: a report always has its six rungs."""
    assert [rung.name for rung in cited(SETTINGS)] == list(QUESTIONS)
    if certificate.CERTIFICATE.exists():
        record = json.loads(certificate.CERTIFICATE.read_text(encoding="utf-8"))
        assert record["schema"] == certificate.SCHEMA
        assert [one["rung"] for one in record["rungs"]] == list(QUESTIONS)
        assert all(Found(**one).rung in QUESTIONS for one in record["found"])


def test_the_tree_is_spelled_alike_by_every_python() -> None:
    """3.12 added an empty list to every function, 3.13 leaves empty lists out: neither may change the hash."""
    node = ast.parse("def f(x):\n    return x").body[0]
    with_field = ast.parse("def f(x):\n    return x").body[0]
    with_field._fields = (*with_field._fields, "type_params")
    with_field.type_params = []
    assert certificate._shape(node) == certificate._shape(with_field)
