"""What docs/security.md promises and no other file tests: secrets, pickle, hostile values, roles, passwords."""

import ast
import json
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from components.cli import app
from components.config import PARAMS, Settings, load_pipeline, parse_pipeline
from components.context import Context
from components.errors import ConfigError, ModelRegistryError
from components.logs import log_to_stderr
from components.masking import MASK, MaskingFilter, mask
from components.model_registry import Registry, Version
from components.steps import run_step
from deploy.local.environment import airflow_settings, password_file, read_password
from tests.small_lake import context_at, day_at
from tests.test_layers import PACKAGES, imported, sources

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hunter2secret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql+psycopg2://mlflow:{SECRET}@db:5432/mlflow", "postgresql+psycopg2://mlflow:***@db:5432/mlflow"),
        (f"redis://:{SECRET}@cache/0 is away", "redis://:***@cache/0 is away"),
        (f"could not reach 'https://u:{SECRET}@h/x', twice", "could not reach 'https://u:***@h/x', twice"),
        (f"password with an at: s3://k:a@{SECRET}@host", "password with an at: s3://k:***@host"),
        ("https://host:8080/path@version", "https://host:8080/path@version"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_of_urls_are_masked_wherever_they_stand(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert SECRET not in mask(text)


def test_settings_show_no_secret_when_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAKE_SECRET_KEY", "LINEAGE_API_KEY"):
        monkeypatch.setenv(f"MFH_{name}", SECRET)
    for name, scheme in (("MLFLOW_URI", "postgresql"), ("FEAST_REGISTRY", "postgresql"), ("ALERT_URL", "https")):
        monkeypatch.setenv(f"MFH_{name}", f"{scheme}://user:{SECRET}{name}@host/x")
    settings = Settings()
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert f"user:{MASK}@host" in repr(settings)
    assert set(settings.secrets) == {
        SECRET,
        *(f"{SECRET}{one}" for one in ("MLFLOW_URI", "FEAST_REGISTRY", "ALERT_URL")),
    }
    assert SECRET not in repr(Context(context_at(settings.home).pipeline, settings))


def test_a_refused_setting_does_not_quote_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFH_METRICS", f"udp://user:{SECRET}@host")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert SECRET not in str(caught.value.errors()[0]["msg"])


def test_logs_are_masked_message_arguments_and_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers.clear()
    try:
        log_to_stderr("key_value", (SECRET,))
        try:
            raise ValueError(f"inside: {SECRET}")
        except ValueError:
            logging.getLogger("mfh").exception("url=%s", f"redis://:other{SECRET}@cache/0")
    finally:
        root.handlers[:] = before
    shown = capsys.readouterr().err
    assert "url=redis://:***@cache/0" in shown
    assert "ValueError: inside: ***" in shown
    assert SECRET not in shown


def test_short_secrets_do_not_tear_words_apart() -> None:
    record = logging.LogRecord("mfh", logging.INFO, "", 0, "a day of data", None, None)
    assert MaskingFilter(["a"]).filter(record)
    assert record.getMessage() == "a day of data"


# Modules that run code while they read data.
UNSAFE = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch.jit")


def test_nothing_reads_pickle() -> None:
    found = [(path, name) for path, name in imported(*PACKAGES) if name.split(".")[0] in UNSAFE or name in UNSAFE]
    assert found == []


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Dotted name and node of every call in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_loads_weights_or_arrays_that_may_run_code() -> None:
    wrong = []
    for path in sources(*PACKAGES):
        for name, node in calls(path):
            keywords = {one.arg: ast.unparse(one.value) for one in node.keywords}
            if name in {"torch.load", "torch.save"} and keywords.get("weights_only") != "True":
                wrong.append(f"{path}:{node.lineno}: {name}")
            if name.endswith("np.load") and keywords.get("allow_pickle", "False") != "False":
                wrong.append(f"{path}:{node.lineno}: {name}")
            if name == "yaml.load":
                wrong.append(f"{path}:{node.lineno}: {name}")
    assert wrong == []


def test_no_shell_is_started_and_nothing_is_evaluated() -> None:
    wrong = []
    for path in sources("components", "simulator", "feature_repo", "dags", "deploy"):
        for name, node in calls(path):
            shell = any(one.arg == "shell" and ast.unparse(one.value) != "False" for one in node.keywords)
            if shell or name in {"eval", "exec", "os.system", "os.popen", "__import__"}:
                wrong.append(f"{path}:{node.lineno}: {name}")
    assert wrong == []


def test_the_reader_of_calls_sees_what_it_looks_for(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("import torch\ntorch.load('x')\nimport subprocess as s\ns.run('x', shell=True)\neval('1')\n")
    assert [name for name, _ in calls(file)] == ["torch.load", "s.run", "eval"]


HOSTILE: list[Any] = [
    "{{ var.value.secret }}",
    "$(touch owned)",
    "`touch owned`",
    "mfh; touch owned",
    "../../etc/passwd",
    "mfh\nple",
    "<script>alert(1)</script>",
    "",
    {"kind": "mfh"},
    ["mfh"],
    -1,
    10**30,
    float("nan"),
]


# A number of shards or a seed may be any integer; Airflow's form has the limits.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}={value!r}")
        for name in sorted(PARAMS)
        for value in HOSTILE
        if not (isinstance(value, int) and name in {"train_seed", "simulation_seed", "shards", "window_days"})
    ],
)
def test_hostile_values_of_a_runs_parameters_are_refused_by_the_settings_themselves(
    tmp_path: Path, name: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=re.escape(".".join(PARAMS[name]))):
        context_at(tmp_path).pipeline.override({name: value})


@pytest.mark.parametrize("name", ["feed", "owner", "name", "factory", "promotion", "__class__", "retention", "lake"])
def test_a_run_can_not_set_what_is_no_parameter(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="unknown parameter"):
        context_at(tmp_path).pipeline.override({name: "x"})
    assert not {place[0] for place in PARAMS.values()} & {"feed", "name", "models", "promotion", "retention"}


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "A", "", "a" * 42, "a;b", "a\n", "{{x}}", "$(x)", ".hidden"])
def test_a_pipelines_name_can_not_leave_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        parse_pipeline({"name": name, "feed": {"kind": "world", "first_day": "2026-01-01"}}, "test")


def test_a_pipeline_file_may_not_construct_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("name: !!python/object/apply:os.system ['touch owned']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_pipeline(file)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("step", ["../ingest", "ingest;ls", "os:system", "__init__", ""])
def test_a_step_is_one_of_the_list(tmp_path: Path, step: str) -> None:
    with pytest.raises(ConfigError, match="no step"):
        run_step(context_at(tmp_path), step, day_at(3))


def test_feast_env_is_safe_to_evaluate_whatever_a_path_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / 'a $(touch owned) `touch owned` "b"'
    (home / "pipelines").mkdir(parents=True)
    pipeline = {"name": "small", "feed": {"kind": "world", "first_day": "2026-01-01"}}
    (home / "pipelines" / "small.yaml").write_text(json.dumps(pipeline))
    monkeypatch.setenv("MFH_HOME", str(home))
    printed = CliRunner().invoke(app, ["feast-env"]).output
    script = f'{printed}\nprintf %s "$MFH_FEAST_ONLINE"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["path"].startswith(str(home))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("folder", ["/etc", "/lake/../etc", "lake"])
def test_the_registry_can_not_make_anything_outside_of_the_lake_be_read(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_at(tmp_path)
    registry = object.__new__(Registry)
    registry.context, registry.name = context, "mfh_small"
    where = folder.replace("/lake", context.settings.lake_root)
    with pytest.raises(ModelRegistryError, match="outside of the lake"):
        registry.files(Version("1", "2024-03-07", "treatment", "0", where, {}))


def test_every_user_has_a_password_of_their_own_that_nobody_else_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = read_password(tmp_path)
    monkeypatch.setenv("MFH_UI_USERS", "vic:viewer,oli:operator")
    assert read_password(tmp_path) == admin, "those that are there stay"
    known = json.loads(password_file(tmp_path).read_text())
    assert set(known) == {"admin", "vic", "oli"}
    assert len(set(known.values())) == 3
    assert all(len(password) >= 16 for password in known.values())
    assert stat.S_IMODE(password_file(tmp_path).stat().st_mode) == 0o600
    assert read_password(tmp_path / "other") != admin, "no default"
    settings = airflow_settings(tmp_path, 8080, ROOT / "dags")
    assert settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "admin:admin,vic:viewer,oli:user"
    assert "ALL_ADMINS" not in " ".join(settings)
    assert settings["AIRFLOW__API__HOST"] == "127.0.0.1"


@pytest.mark.parametrize(
    "users", ["vic", "vic:root", "vic:viewer;x", "Vic:viewer", "a,b:viewer", ":admin", "v:viewer,"]
)
def test_users_without_a_known_role_are_refused(users: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFH_UI_USERS", users)
    with pytest.raises(ValidationError, match="ui_users"):
        Settings()


ROLES = """
import json
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser as User
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
manager = SimpleAuthManager()
may = {}
for role in ("viewer", "user", "admin"):
    user = User(username="x", role=role)
    may[role] = {
        "read": manager.is_authorized_dag(method="GET", user=user),
        "backfill": manager.is_authorized_dag(method="POST", access_entity=DagAccessEntity.RUN, user=user),
        "clear": manager.is_authorized_dag(method="PUT", user=user),
        "connections": manager.is_authorized_connection(method="GET", user=user),
        "variables": manager.is_authorized_variable(method="GET", user=user),
        "pools": manager.is_authorized_pool(method="PUT", user=user),
    }
print(json.dumps(may))
"""


@pytest.mark.integration
def test_viewers_read_operators_backfill_and_only_admins_see_connections(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", ROLES], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    may = json.loads(done.stdout.splitlines()[-1])
    nothing = dict.fromkeys(("read", "backfill", "clear", "connections", "variables", "pools"), False)
    assert may["viewer"] == nothing | {"read": True}
    assert may["user"] == nothing | {"read": True, "backfill": True, "clear": True}
    assert may["admin"] == dict.fromkeys(nothing, True)


CONNECTION = """
import json
from airflow.sdk.log import redact
import dags.mfh_daily as module
found = module.settings_of_task()
shown = redact(f"key {found.lake_secret_key}, registry {found.mlflow_uri}")
print(json.dumps([found.lake_access_key, found.lake_secret_key, found.lake_endpoint, shown]))
"""


@pytest.mark.integration
def test_a_task_takes_the_lakes_keys_from_a_connection_and_tells_airflow_to_mask_them(tmp_path: Path) -> None:
    connection = {
        "conn_type": "generic",
        "login": "AKIA1",
        "password": "s3secret",
        "extra": {"endpoint_url": "http://s3"},
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "MFH_HOME": str(tmp_path),
        "MFH_LAKE_CONNECTION": "lake",
        "MFH_MLFLOW_URI": f"postgresql://mlflow:{SECRET}@db/mlflow",
        "AIRFLOW_CONN_LAKE": json.dumps(connection),
    }
    done = subprocess.run([sys.executable, "-c", CONNECTION], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == ["AKIA1", "s3secret", "http://s3", "key ***, registry postgresql://mlflow:***@db/mlflow"]


def test_every_line_of_the_threat_model_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| T")]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test behind: {row}"
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in functions, f"{file} has no {test}"
