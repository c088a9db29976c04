"""The house keeps its order: imports run one way, files stay short, and Airflow parses the DAGs cheaply."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

PACKAGES = ("components", "simulator", "feature_repo", "dags", "deploy", "benchmarks")
HEAVY = (
    "torch",
    "feast",
    "great_expectations",
    "pandas",
    "mlflow",
    "duckdb",
    "scipy",
    "pyarrow",
    "numpy",
    "matplotlib",
)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(*folders: str) -> list[tuple[str, str]]:
    """Pairs of file and imported module."""
    found = []
    for path in sources(*folders):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [(str(path.relative_to(CHECKOUT)), name) for name in imports_of(tree)]
    assert found
    return found


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offenders(folders: tuple[str, ...], *forbidden: str) -> list[tuple[str, str]]:
    return [(path, name) for path, name in imported(*folders) if below(name, *forbidden)]


def test_the_reader_of_imports_sees_all_kinds() -> None:
    text = "import a.b\nfrom c import d\ndef f():\n    import e\n    from g.h import i as j\n"
    assert list(imports_of(ast.parse(text))) == ["a.b", "c.d", "e", "g.h.i"]
    assert below("a.b.c", "a.b")
    assert not below("a.bc", "a.b")


def test_steps_know_neither_airflow_nor_what_runs_them() -> None:
    assert offenders(("components", "simulator", "feature_repo"), "airflow", "dags", "deploy", "tests") == []


def test_only_the_command_line_starts_benchmarks() -> None:
    assert {path for path, _ in offenders(("components", "simulator"), "benchmarks")} == {
        "components/cli_bench.py",
        "components/cli_check.py",
    }


def test_dags_wire_components_and_nothing_else() -> None:
    outside = {name.split(".")[0] for _, name in imported("dags") if name.split(".")[0] not in sys.stdlib_module_names}
    assert outside == {"airflow", "components", "pendulum"}


def test_the_simulator_knows_only_the_schema_and_the_configuration() -> None:
    allowed = ("components.config", "components.errors", "components.days", "components.feed.schema")
    found = [(path, name) for path, name in imported("simulator") if below(name, "components", "feature_repo")]
    assert [(path, name) for path, name in found if not below(name, *allowed)] == []


def test_models_know_only_tensors_tables_and_the_configuration() -> None:
    allowed = ("components.models", "components.config", "components.errors")
    # The bundle reads configuration records, whose errors are pydantic's.
    libraries = {"torch", "numpy", "pyarrow", "safetensors", "pydantic"}
    wrong = [
        (path, name)
        for path, name in imported("components/models")
        if not below(name, *allowed)
        and name.split(".")[0] not in libraries
        and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_the_feed_and_the_feature_repository_know_no_step() -> None:
    named = [path.stem for path in (CHECKOUT / "components").glob("*.py")]
    allowed = {"__init__", "config", "days", "errors", "lake", "feature_list", "event_rows", "inputs"}
    steps = [f"components.{name}" for name in named if name not in allowed]
    assert "components.dataset" in steps
    assert offenders(("components/feed", "feature_repo"), *steps, "components.models") == []


def test_files_stay_short() -> None:
    long = {}
    for path in sources(*PACKAGES, "tests"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 400:
            long[str(path.relative_to(CHECKOUT))] = lines
    assert long == {}


def test_no_module_is_named_after_nothing() -> None:
    names = {path.stem for path in sources(*PACKAGES)} | {path.parent.name for path in sources(*PACKAGES)}
    assert not names & {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}


def test_every_package_says_what_it_holds() -> None:
    packages = [path for path in sources(*PACKAGES) if path.name == "__init__.py"]
    assert {path.parent.name for path in packages} >= set(PACKAGES)
    assert [str(path) for path in packages if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


PARSE = """
import json, sys, time
import pendulum
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, Param, get_current_context, task
before = set(sys.modules)
began = time.process_time()
import dags.mfh_daily as module
seconds = time.process_time() - began
added = sorted({name.split('.')[0] for name in set(sys.modules) - before})
dags = [name for name in vars(module) if name.startswith('mfh_daily_')]
print(json.dumps({'seconds': seconds, 'added': added, 'all': sorted(sys.modules), 'dags': dags}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What parsing the DAG file does in a fresh process, as Airflow's processor would."""
    home = tmp_path_factory.mktemp("parse")
    (home / "pipelines").mkdir()
    text = (CHECKOUT / "deploy" / "pipelines" / "world.yaml").read_text(encoding="utf-8")
    (home / "pipelines" / "world.yaml").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    environment |= {"MFH_HOME": str(home), "AIRFLOW_HOME": str(home / "airflow")}
    environment["PYTHONPATH"] = str(CHECKOUT)
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_parsing_the_dags_imports_nothing_heavy(parsed: dict[str, object]) -> None:
    assert parsed["dags"] == ["mfh_daily_world"]
    assert isinstance(parsed["added"], list)
    assert isinstance(parsed["all"], list)
    assert "components" in parsed["added"]
    assert [name for name in HEAVY if name in parsed["all"]] == []


def test_parsing_the_dags_costs_less_than_a_second(parsed: dict[str, object]) -> None:
    assert isinstance(parsed["seconds"], float)
    assert 0 < parsed["seconds"] < 1.0
