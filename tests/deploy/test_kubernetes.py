"""Pods of every task, rendered by the executor's own code and held against the schemas of Kubernetes; no cluster."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.config import parse_pipeline
from components.steps import STEPS
from tests.conftest import CHECKOUT

KUBERNETES = CHECKOUT / "deploy" / "kubernetes"
TEMPLATES = KUBERNETES / "pod_templates"
VALUES: dict[str, Any] = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
IMAGE = f"{VALUES['images']['pod_template']['repository']}:{VALUES['images']['pod_template']['tag']}"
# The oldest and the newest release that the package has schemas of and that is still maintained somewhere.
RELEASES = ("1.31", "1.37")
ON_GPU = {"train_treatment", "train_baseline", "diagnose"}
PIPELINE = {"name": "world", "feed": {"kind": "world", "first_day": "2024-01-01"}, "diagnostics": True}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Pod of each task, by task id, in an environment like the one that the chart's values make."""
    folder = tmp_path_factory.mktemp("pods")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "world.yaml").write_text(yaml.safe_dump(PIPELINE))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    repository, _, tag = IMAGE.rpartition(":")
    env |= {
        "PYTHONPATH": str(CHECKOUT),
        "MFH_HOME": str(folder),
        "MFH_POD_TEMPLATES": str(TEMPLATES),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(TEMPLATES / "base.yaml"),
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": repository,
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": tag,
    }
    command = [sys.executable, "-m", "deploy.kubernetes.pods", "--out", str(folder / "pods")]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    files = sorted((folder / "pods").glob("*.yaml"))
    return {file.stem.partition(".")[2]: yaml.safe_load(file.read_text()) for file in files}


@pytest.mark.integration
def test_every_task_has_a_pod(pods: dict[str, dict[str, Any]]) -> None:
    pipeline = parse_pipeline(PIPELINE, where="test")
    daily = {name for name, pod in pods.items() if pod["metadata"]["labels"]["dag_id"] == "mfh_daily_world"}
    assert daily == {step.name for step in STEPS if step.is_part_of(pipeline)} | {"shards"}
    for name, pod in pods.items():
        assert pod["metadata"]["labels"]["task_id"] == name
        (container,) = pod["spec"]["containers"]
        assert container["name"] == "base"
        assert container["image"] == IMAGE
        assert container["args"][:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
        assert f'"task_id":"{name}"' in container["args"][4]


@pytest.mark.integration
@pytest.mark.parametrize("release", RELEASES)
def test_every_pod_is_what_kubernetes_takes(pods: dict[str, dict[str, Any]], release: str) -> None:
    for pod in pods.values():
        kubernetes_validate.validate(pod, release, strict=True)


@pytest.mark.integration
def test_the_schemas_refuse_a_misspelt_key_and_a_wrong_type(pods: dict[str, dict[str, Any]]) -> None:
    for change in ({"tolerationz": []}, {"terminationGracePeriodSeconds": "soon"}, {"containers": []}):
        pod = copy.deepcopy(pods["ingest"])
        pod["spec"] |= change
        if change == {"containers": []}:
            del pod["spec"]["containers"]
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, RELEASES[-1], strict=True)


@pytest.mark.integration
def test_what_trains_asks_for_a_gpu_and_may_run_where_one_is(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        resources = pod["spec"]["containers"][0]["resources"]
        wanted = "1" if name in ON_GPU else None
        assert resources["limits"].get("nvidia.com/gpu") == wanted, name
        assert resources["requests"].get("nvidia.com/gpu") == wanted, name
        tolerated = [one["key"] for one in pod["spec"].get("tolerations", [])]
        assert tolerated == (["nvidia.com/gpu"] if wanted else []), name


@pytest.mark.integration
def test_every_pod_is_bounded_and_can_do_little(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind]), name
        assert spec["restartPolicy"] == "Never", "Airflow retries, which counts"
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 50_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
            assert not spec.get(forbidden), name
        assert [volume for volume in spec["volumes"] if "hostPath" in volume] == []


@pytest.mark.integration
def test_what_a_task_writes_has_a_volume_since_the_root_is_read_only(pods: dict[str, dict[str, Any]]) -> None:
    for pod in pods.values():
        mounts = {one["mountPath"]: one["name"] for one in pod["spec"]["containers"][0]["volumeMounts"]}
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        assert set(mounts.values()) == set(volumes)
        for path in ("/tmp", "/opt/airflow", "/var/lib/mfh"):
            assert "emptyDir" in volumes[mounts[path]]


@pytest.mark.integration
def test_no_pod_is_given_the_database_of_airflow(pods: dict[str, dict[str, Any]]) -> None:
    given = (VALUES["data"]["metadataSecretName"], VALUES["fernetKeySecretName"], VALUES["jwtSecretName"])
    for pod in pods.values():
        text = yaml.safe_dump(pod)
        assert "SQL_ALCHEMY" not in text
        assert [secret for secret in given if secret in text] == []


def test_the_chart_starts_the_components_as_safely_as_the_templates_start_the_tasks() -> None:
    template = yaml.safe_load((TEMPLATES / "base.yaml").read_text())["spec"]
    assert VALUES["executor"] == "KubernetesExecutor"
    assert VALUES["securityContexts"]["pod"] == template["securityContext"]
    assert VALUES["securityContexts"]["containers"] == template["containers"][0]["securityContext"]
    for component in ("scheduler", "apiServer", "dagProcessor", "triggerer"):
        assert {"requests", "limits"} == set(VALUES[component]["resources"]), component
    assert VALUES["createUserJob"]["defaultUser"]["enabled"] is False, "no default password"


def test_names_that_the_templates_use_are_made_by_the_values_or_by_the_guide() -> None:
    guide = (CHECKOUT / "deploy" / "README.md").read_text(encoding="utf-8")
    for file in TEMPLATES.glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        wanted = {next(iter(one.values()))["name"] for one in spec["containers"][0]["envFrom"]}
        wanted |= {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
        made = set(VALUES["extraConfigMaps"])
        assert {name for name in wanted - made if f" {name} " not in guide} == set(), file.name
        assert spec["serviceAccountName"] == VALUES["workers"]["serviceAccount"]["name"]
    for name in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName"):
        assert f" {VALUES[name]} " in guide


def test_paths_inside_the_image_are_paths_of_the_tree_that_are_copied_there() -> None:
    settings = yaml.safe_load(VALUES["extraConfigMaps"]["mfh-settings"]["data"])
    inside = [settings["MFH_POD_TEMPLATES"], settings["AIRFLOW__CORE__DAGS_FOLDER"]]
    inside += [*settings["PYTHONPATH"].split(":")[1:], VALUES["config"]["kubernetes_executor"]["pod_template_file"]]
    image = (CHECKOUT / "deploy" / "image" / "Containerfile").read_text()
    copied = re.findall(r"^COPY (\S+) /opt/mfh/(\S+)$", image, re.M)
    for path in inside:
        relative = Path(path).relative_to("/opt/mfh")
        assert (CHECKOUT / relative).exists(), path
        assert (relative.parts[0], relative.parts[0]) in copied, path


def test_the_image_runs_as_nobody_in_particular_and_brings_every_package() -> None:
    image = (CHECKOUT / "deploy" / "image" / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", image, re.M)[-1] == "50000:50000"
    ignored = (CHECKOUT / ".containerignore").read_text().splitlines()
    # All is left out but for what is named, so that no secret or lake of a checkout gets into an image.
    assert ignored[0] == "*"
    sources = [one for line in re.findall(r"^COPY (?!--from)(.*) \S+$", image, re.M) for one in line.split()]
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert f"!{source}" in ignored, source
    packages = {"components", "simulator", "feature_repo", "dags", "deploy", "benchmarks"}
    assert packages <= set(sources)
