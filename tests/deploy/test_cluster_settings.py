"""The settings of a cluster: what differs from the embedded defaults, alike in launcher and compose file."""

import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import Settings
from components.errors import ConfigError, LakeError
from deploy.cluster.__main__ import main, servers_of
from deploy.cluster.environment import Servers, cluster_settings
from deploy.cluster.stack import ClusterStack
from deploy.compose.bucket import make as make_bucket
from deploy.compose.credentials import make as make_credentials
from deploy.local.environment import BACKFILL_POOL, PRELOAD, airflow_settings
from deploy.local.stack import POOLS
from tests.conftest import CHECKOUT

SERVERS = Servers("postgresql://mfh:word@db:5432", "redis://:word@redis:6379/0", "s3://lake/production")
COMPOSE = CHECKOUT / "deploy" / "compose"
FILE: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
OURS = {"bucket", "migrate", "api-server", "scheduler", "dag-processor", "triggerer", "worker-default", "worker-gpu"}


def test_a_cluster_differs_from_the_embedded_defaults_in_its_servers_alone(tmp_path: Path) -> None:
    embedded = airflow_settings(tmp_path, 8_080, CHECKOUT / "dags")
    cluster = cluster_settings(tmp_path, 8_080, CHECKOUT / "dags", SERVERS)
    assert {name for name, text in embedded.items() if name in cluster and cluster[name] != text} == {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW__CORE__PARALLELISM",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    }
    assert cluster["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert cluster["AIRFLOW__CELERY__RESULT_BACKEND"] == "db+" + cluster["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    # A store in a file of one machine would be empty on the next.
    assert not [name for name, text in cluster.items() if "sqlite" in text.lower()]
    assert cluster["MFH_ONLINE_STORE"] == "redis://:word@redis:6379/1"
    other = replace(SERVERS, online="postgresql://db/online")
    settings = cluster_settings(tmp_path, 8_080, CHECKOUT / "dags", other)
    assert settings["MFH_ONLINE_STORE"] == "postgresql://db/online"
    assert cluster["AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER"] == "1"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"postgres": "mysql://db"}, "postgresql://"),
        ({"postgres": "postgresql://db/airflow"}, "not a database"),
        ({"redis": "amqp://queue"}, "redis://"),
        ({"redis": "redis://queue/broker"}, "by its number"),
    ],
)
def test_a_server_of_another_kind_is_refused_before_anything_starts(change: dict[str, str], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        Servers(**({"postgres": "postgresql://db", "redis": "redis://queue", "lake": "s3://lake"} | change))


def test_a_server_that_is_not_named_is_an_error_of_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MFH_POSTGRES", raising=False)
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("error: MFH_POSTGRES is not set")
    named = {"MFH_POSTGRES": SERVERS.postgres, "MFH_REDIS": SERVERS.redis, "MFH_LAKE": SERVERS.lake}
    assert servers_of(named, Settings(lake=SERVERS.lake)) == SERVERS


def test_a_worker_elsewhere_is_given_what_it_needs_and_nobody_listens_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MFH_HOME": str(tmp_path),
        "MFH_POSTGRES": SERVERS.postgres,
        "MFH_REDIS": SERVERS.redis,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MFH_LAKE", SERVERS.lake)
    assert main(["--print-environment"]) == 0
    alone = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert main(["--print-environment", "--advertise", "train-0"]) == 0
    known = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert alone["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert known["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://train-0:8080/execution/"
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__CELERY__BROKER_URL"):
        assert known[name] == alone[name]


def test_the_compose_file_has_the_settings_of_the_launcher(tmp_path: Path) -> None:
    wanted = cluster_settings(tmp_path, 8_080, CHECKOUT / "dags", SERVERS)
    found = FILE["x-airflow"]["environment"]
    for name, text in found.items():
        # Secrets and places differ; everything else is one decision, made in one place.
        if name in wanted and not re.search(r"[$/]", text) and "/" not in wanted[name]:
            assert text == wanted[name], name
    # Of the launcher's, these make a machine of two cores bearable or keep servers on the loopback interface.
    local = {name for name in wanted if name.startswith(("AIRFLOW__API__", "AIRFLOW__LOGGING__", "AIRFLOW__WORKERS__"))}
    local |= {name for name in wanted if "HEALTH_CHECK" in name or name.startswith("AIRFLOW__DAG_PROCESSOR__")}
    local |= {"AIRFLOW__CORE__HOSTNAME_CALLABLE", "PYTHONPATH"}
    assert set(wanted) - set(found) - local == set()


def test_the_compose_file_preloads_where_tasks_are_forked() -> None:
    told = {
        name: service["environment"].get("MFH_PRELOAD") for name, service in FILE["services"].items() if name in OURS
    }
    assert {name: text for name, text in told.items() if text} == dict.fromkeys(ClusterStack.forks_tasks, PRELOAD)


def test_the_compose_file_starts_the_components_of_the_launcher(tmp_path: Path) -> None:
    stack = ClusterStack(tmp_path, 8_080, SERVERS)
    started = {
        name: one["command"] for name, one in FILE["services"].items() if one.get("command", [""])[0] == "airflow"
    }
    assert set(started) == set(stack._components)
    assert FILE["services"]["migrate"]["command"][-1].endswith("pools import /opt/mfh/deploy/pools.json")
    for name in ("worker-default", "worker-gpu"):
        queue = started[name][started[name].index("--queues") + 1]
        assert queue == stack._components[name][stack._components[name].index("--queues") + 1]


def test_containers_of_ours_can_do_little_and_are_reached_from_this_machine_only() -> None:
    for name in OURS:
        service = FILE["services"][name]
        assert service["read_only"] is True, name
        assert service["user"] == "50000:50000"
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["restart"] in ("always", "on-failure")
    published = [port for service in FILE["services"].values() for port in service.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert published


def test_the_pools_of_an_installation_are_those_of_the_launcher() -> None:
    pools = json.loads((CHECKOUT / "deploy" / "pools.json").read_text())
    assert set(pools) == {*POOLS, BACKFILL_POOL}
    assert {name: pools[name]["slots"] for name in POOLS} == dict.fromkeys(POOLS, 1)
    parallelism = int(FILE["x-airflow"]["environment"]["AIRFLOW__CORE__PARALLELISM"])
    assert pools[BACKFILL_POOL]["slots"] < parallelism, "something is left to the daily run"


def test_the_credentials_are_all_that_the_compose_file_asks_for(tmp_path: Path) -> None:
    env, passwords = make_credentials(tmp_path)
    made = dict(line.split("=", 1) for line in env.read_text().splitlines())
    asked = set(re.findall(r"\$\{([A-Z_]+)(?::\?[^}]*)?\}", (COMPOSE / "compose.yaml").read_text()))
    assert asked == set(made)
    assert len(set(made.values())) == len(made)
    assert all(len(value) >= 40 for value in made.values())
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert stat.S_IMODE(passwords.parent.stat().st_mode) == 0o700
    assert len(json.loads(passwords.read_text())["admin"]) > 12
    before = env.read_text()
    assert make_credentials(tmp_path) == [], "an installation keeps its secrets"
    assert env.read_text() == before


def test_only_an_object_store_gets_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no object store"):
        make_bucket(Settings(lake=str(tmp_path)))
    with pytest.raises(LakeError, match=r"127\.0\.0\.1:9.*does not take the bucket 'lake'"):
        endpoint = "http://127.0.0.1:9"
        make_bucket(Settings(lake="s3://lake/x", lake_endpoint=endpoint, lake_access_key="k", lake_secret_key="s"), 0)
