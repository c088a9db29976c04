"""The embedded defaults as environment variables: one SQLite file, LocalExecutor, everything on 127.0.0.1."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from components.config import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
USER = "admin"
BACKFILL_POOL = "backfill"
# What tasks import for seconds each, and what starts no thread and opens no GPU by being imported.
PRELOAD = (
    "duckdb,feast,feast.infra.offline_stores.duckdb,great_expectations,mlflow,numba,pandas,pyarrow.dataset,"
    "scipy.stats,torch,torch._dynamo"
)
# Under load the scheduler holds SQLite's one write lock for longer than the driver's five seconds.
SQLITE_CONNECT_ARGS = {"timeout": 60}
# A dictionary of its own: Airflow writes into the other one.
SQLITE_CONNECT_ARGS_ASYNC = {"timeout": 60}


def airflow_settings(home: Path, port: int, dags: Path) -> dict[str, str]:
    """Every variable that Airflow's components and its tasks need. Makes the home's secrets on first use.

    Args:
        home: The machine's folder (MFH_HOME).
        port: Where the API server and the UI listen.
        dags: Folder of the DAG files.

    Returns:
        Variable name to value.
    """
    airflow_home = home / "airflow"
    url = f"http://{LOOPBACK}:{port}"
    private = _secrets(airflow_home)
    return {
        "MFH_HOME": str(home),
        "MFH_BACKFILL_POOL": BACKFILL_POOL,
        # The second holds Airflow's cluster policy: backfills wait for the daily run.
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "deploy" / "policy")]),
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Two cores import Airflow, Feast and torch at once at best; SQLite was never locked with four.
        "AIRFLOW__CORE__PARALLELISM": "4",
        # A backfill of a paused DAG stays queued.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": private["fernet_key"],
        # The default asks DNS for a full name, which takes seconds on a machine without a network.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in users().items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(home)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home / 'airflow.db'}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{__name__}.SQLITE_CONNECT_ARGS",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": f"{__name__}.SQLITE_CONNECT_ARGS_ASYNC",
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": private["secret_key"],
        "AIRFLOW__API_AUTH__JWT_SECRET": private["jwt_secret"],
        # New and changed DAG files are seen within seconds instead of five minutes.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # Its port would collide with a second stack's; health is asked of the API server instead.
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        # A task killed with its machine is retried after two minutes; a machine busy with training still beats.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60",
        "AIRFLOW__DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": "60",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "60",
        # On two cores an answer of the API can wait behind four tasks that import torch.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "6",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "GX_ANALYTICS_ENABLED": "False",
        "FEAST_USAGE": "False",
    }


def process_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What a component is started with: this process's environment, with Airflow's part replaced.

    Args:
        settings: As ``airflow_settings`` gives them.

    Returns:
        The whole environment. AIRFLOW variables of the caller are left out: they belong to another Airflow.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # Every task imports its libraries anew; without cached bytecode that takes twice as long.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    merged = inherited | dict(settings)
    merged["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
    # A proxy that is set for the internet can not reach the API server on this machine.
    for name in ("NO_PROXY", "no_proxy"):
        merged[name] = ",".join(filter(None, [inherited.get(name, ""), LOOPBACK, "localhost"]))
    return merged


def users() -> dict[str, str]:
    """Who may sign in, with SimpleAuthManager's role: the admin, and those of ``MFH_UI_USERS``.

    An operator backfills and clears tasks (role ``user``) and sees neither connections nor variables.
    """
    further = dict(one.split(":") for one in Settings().ui_users.split(",") if one)
    return {USER: "admin"} | {name: "user" if role == "operator" else role for name, role in further.items()}


def password_file(home: Path) -> Path:
    """Where the UI's generated password lies: JSON, user to password."""
    return home / "airflow" / "simple_auth_manager_passwords.json.generated"


def read_password(home: Path) -> str:
    """The admin's password, made on first use with those of all users."""
    path = password_file(home)
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    made = {name: secrets.token_urlsafe(12) for name in users() if name not in known}
    if made:
        # Written here rather than by Airflow, which would print it into a log and leave the file readable to all.
        _write_private(path, json.dumps(known | made) + "\n")
    return (known | made)[USER]


def _secrets(airflow_home: Path) -> dict[str, str]:
    path = airflow_home / "secrets.json"
    if not path.exists():
        made = {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "jwt_secret": secrets.token_urlsafe(48),
            "secret_key": secrets.token_urlsafe(32),
        }
        _write_private(path, json.dumps(made, indent=1) + "\n")
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened with its mode, so that there is no moment at which others can read it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
