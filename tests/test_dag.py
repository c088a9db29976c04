"""The DAG: what it promises to Airflow, and one whole day of the KuaiRand fixture run by ``dag.test()``.

Airflow reads its settings when it is imported, so everything happens in one process of its own that writes what
it saw into a file; the tests below look at that file and at the lake.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import MODEL_KINDS, Settings, load_pipeline
from components.context import Context
from components.days import day_range, midnight
from components.lake import Lake, Partition
from components.report import DAY_PAGE, find_report
from components.steps import AFTER, BY_NAME, STEPS
from simulator.experiment import Experiment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

CHECKOUT = Path(__file__).resolve().parent.parent
FIRST, LAST = date(2022, 4, 25), date(2022, 5, 4)
DAY = date(2022, 4, 30)
TRAINED, HELD = [date(2022, 4, 27), date(2022, 4, 28)], date(2022, 4, 29)
SHARDS = 2

TINY = {
    "level0_width": 8,
    "level1": {"kind": "ple", "widths": [8, 8], "experts": 1, "shared": 1},
    "deeper": {"kind": "cgc", "widths": [8], "experts": 1, "shared": 1},
    "tower_widths": [8],
    "small_tower_widths": [8],
}
FIXTURE = {
    "name": "fixture",
    "description": "The fixture of the tests",
    "owner": "recommendations",
    "feed": {"kind": "kuairand", "first_day": FIRST, "last_day": LAST},
    "groups": {"new_tenure_days": 90},
    "sizes": TINY,
    "train": {"window_days": 2, "epochs": 1, "batch_size": 128},
    "simulator": {
        "shards": SHARDS,
        "ensemble": 2,
        "epochs": 1,
        "rollouts": 1,
        "candidates": 10,
        "max_slots": 10,
        "fusion_trials": 2,
    },
    "decision": {"min_users": 10},
    "diagnostics": True,
    "promotion": {"champion": "rollouts"},
}
# A feed that grows has no last day; a pipeline that asks for no diagnostics and no tuning has no such tasks.
GROWING = {"name": "growing", "feed": {"kind": "world", "first_day": date(2022, 1, 1)}}

MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"window_days": "many"}, "window_days"),
    ({"window_days": 0}, "window_days"),
    ({"treatment": "nobody"}, "treatment"),
    ({"shards": 1.5}, "shards"),
    ({"promote": "yes"}, "promote"),
    ({"let_gates_pass_because": "ok"}, "let_gates_pass_because"),
]


@dataclass(frozen=True)
class Seen:
    """What Airflow said, and the lake that the day left behind."""

    airflow: dict[str, Any]
    context: Context

    @property
    def dag(self) -> dict[str, Any]:
        """The fixture's DAG."""
        facts: dict[str, Any] = self.airflow["dags"]["mfh_daily_fixture"]
        return facts


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Seen:
    folder = tmp_path_factory.mktemp("dag")
    home = folder / "mfh"
    (home / "pipelines").mkdir(parents=True)
    (home / "airflow").mkdir()
    fixture = FIXTURE | {"feed": FIXTURE["feed"] | {"folder": str(test_data / "kuairand_fixture")}}
    for pipeline in (fixture, GROWING):
        (home / "pipelines" / f"{pipeline['name']}.yaml").write_text(yaml.safe_dump(pipeline))
    (home / "pipelines" / "broken.yaml").write_text(
        "name: broken\nfeed: {kind: world, first_day: 2026-01-01}\nshards: 3\n"
    )
    context = Context(load_pipeline(home / "pipelines" / "fixture.yaml"), Settings(home=home, lake="", pipelines=""))
    zone = context.pipeline.feed.zone
    # A run of dag.test is for the interval that ends at its logical date.
    ends = {key: midnight(day + timedelta(days=1), zone).isoformat() for key, day in DAYS_RUN.items()}
    (folder / "wanted.json").write_text(json.dumps(ends | {"malformed": [conf for conf, _ in MALFORMED]}))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {
        "MFH_HOME": str(home),
        "PYTHONPATH": str(CHECKOUT),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    command = [
        sys.executable,
        # Safe path: beside the program lie folders of tests that are named like packages.
        "-P",
        str(CHECKOUT / "tests" / "dag_script.py"),
        str(folder / "wanted.json"),
        str(folder / "seen.json"),
    ]
    with (folder / "output.log").open("wb") as output:
        done = subprocess.run(command, env=env, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False)
    tail = "\n".join((folder / "output.log").read_text(errors="replace").splitlines()[-60:])
    assert done.returncode == 0, tail
    found = Seen(json.loads((folder / "seen.json").read_text()), context)
    if found.airflow["day"]["state"] != "success":
        print(tail)
    return found


DAYS_RUN = {"moment": DAY, "first_moment": FIRST}


def partitions(lake: Lake) -> list[Partition]:
    """Every partition of a scope of the lake, its sub-scopes left out."""
    names = {Path(str(path)).parent.name for path in lake.fs.glob(lake.path("*", "ds=*"))}
    return [lake.get(name, day) for name in sorted(names) for day in lake.days(name)]


def test_every_pipeline_file_is_a_dag_and_nothing_else_is(seen: Seen) -> None:
    # A file that is wrong is an import error that says why, and takes nothing else away.
    ((file, trace),) = seen.airflow["import_errors"].items()
    assert Path(file).name == "mfh_pipeline_files.py"
    assert "broken.yaml" in trace
    assert "shards: Extra inputs are not permitted" in trace
    names = ["mfh_daily_fixture", "mfh_daily_growing", "mfh_maintain_fixture", "mfh_maintain_growing"]
    assert sorted(seen.airflow["dags"]) == names
    maintain = seen.airflow["dags"]["mfh_maintain_fixture"]
    assert (maintain["expression"], maintain["zone"]) == ("0 12 * * 6", "Asia/Shanghai")
    assert maintain["params"]["apply"]["default"] is False, "it only lists, unless it is told to remove"
    assert set(maintain["tasks"]) == {"maintain"}


def test_a_run_that_is_late_is_told_about(seen: Seen) -> None:
    wanted = ["DagRunQueuedAtDeadline", 6 * 3600.0, "components.deadline.on_deadline", {"pipeline": "fixture"}]
    assert seen.dag["deadline"] == [wanted]


def test_a_run_is_a_local_day_of_the_feed(seen: Seen) -> None:
    dag = seen.dag
    assert (dag["timetable"], dag["expression"]) == ("CronDataIntervalTimetable", "0 0 * * *")
    assert dag["zone"] == "Asia/Shanghai"
    assert dag["start"] == "2022-04-24T16:00:00+00:00"
    assert dag["catchup"] is False
    start, end = seen.airflow["day"]["interval"]
    assert (start, end) == ("2022-04-29T16:00:00+00:00", "2022-04-30T16:00:00+00:00")


def test_a_finite_feed_ends_and_a_growing_one_does_not(seen: Seen) -> None:
    assert seen.dag["end"] == "2022-05-03T16:00:00+00:00", "the last run is for the last day"
    assert seen.airflow["dags"]["mfh_daily_growing"]["end"] is None


def test_the_ui_explains_the_day(seen: Seen) -> None:
    dag = seen.dag
    assert dag["tags"] == ["kuairand", "mfh"]
    assert dag["owner"] == "recommendations"
    assert dag["description"] == "The fixture of the tests"
    assert "ingest" in dag["doc_md"]
    for name, task in dag["tasks"].items():
        assert task["owner"] == "recommendations", name
        assert task["doc_md"], name
    for step in STEPS:
        assert step.meaning in dag["tasks"][step.name]["doc_md"]
        assert f"Runbook: `docs/runbooks.md#{step.name}`" in dag["tasks"][step.name]["doc_md"]


def test_every_step_is_a_task_that_retries_with_backoff_and_ends(seen: Seen) -> None:
    tasks = seen.dag["tasks"]
    assert set(tasks) == {*BY_NAME, "shards"}
    for name, task in tasks.items():
        assert task["retries"] >= 1, name
        assert task["backoff"], name
        assert task["delay_s"] > 0, name
        assert task["timeout_s"], name


def test_training_takes_turns_on_the_gpu_pool_and_writers_of_the_online_store_on_theirs(seen: Seen) -> None:
    pools = {name: task["pool"] for name, task in seen.dag["tasks"].items() if task["pool"] != "default_pool"}
    trained = dict.fromkeys(("train_treatment", "train_baseline", "diagnose"), "gpu")
    assert pools == trained | {"materialize": "online_store"}
    assert seen.dag["tasks"]["train_baseline"]["upstream"] == ["train_treatment"]


def test_diagnostics_are_a_task_where_the_pipeline_asks_for_them(seen: Seen) -> None:
    tasks, others = seen.dag["tasks"], seen.airflow["dags"]["mfh_daily_growing"]["tasks"]
    assert tasks["diagnose"]["upstream"] == ["train_baseline"]
    assert sorted(tasks["report"]["upstream"]) == ["analyse", "diagnose", "feature_report"]
    assert set(others) == {*BY_NAME, "shards"} - {"diagnose", "tune", "champion"}
    assert sorted(others["report"]["upstream"]) == ["analyse", "feature_report"]


def test_only_simulate_is_mapped_and_nothing_reads_a_log_that_was_not_checked(seen: Seen) -> None:
    tasks = seen.dag["tasks"]
    assert [name for name, task in tasks.items() if task["mapped"]] == ["simulate"]
    assert tasks["validate_log"]["upstream"] == ["ingest"]
    assert tasks["features"]["upstream"] == ["validate_log"]
    assert tasks["dataset"]["upstream"] == tasks["materialize"]["upstream"] == ["validate_features"]
    assert tasks["check_skew"]["upstream"] == ["materialize"]
    assert tasks["feature_report"]["upstream"] == ["train_baseline"]
    assert sorted(tasks["promote"]["upstream"]) == ["champion", "check_skew", "report"]
    assert sorted(tasks["champion"]["upstream"]) == ["evaluate", "simulate"]
    # Replay holds the response model against the log, beside the rollouts.
    assert sorted(tasks["tune"]["upstream"]) == ["respond", "train_baseline"]
    assert sorted(tasks["replay"]["upstream"]) == ["respond", "train_baseline", "tune"]
    assert sorted(seen.airflow["dags"]["mfh_daily_growing"]["tasks"]["replay"]["upstream"]) == [
        "respond",
        "train_baseline",
    ]
    assert sorted(tasks["analyse"]["upstream"]) == ["replay", "simulate", "validate_models"]


def test_the_dag_waits_as_the_steps_say(seen: Seen) -> None:
    for name, others in AFTER.items():
        # The shards of the rollouts are counted by a task of Airflow's own.
        found = set(seen.dag["tasks"][name]["upstream"]) - {"shards"}
        assert found == set(others), name
    order = list(BY_NAME)
    assert set(AFTER) == set(order)
    for name, others in AFTER.items():
        assert all(order.index(one) < order.index(name) for one in others), "the steps stand in a possible order"


def test_models_and_report_are_assets(seen: Seen) -> None:
    assert {name: task["outlets"] for name, task in seen.dag["tasks"].items() if task["outlets"]} == {
        "train_treatment": ["mfh://fixture/model/treatment"],
        "train_baseline": ["mfh://fixture/model/baseline"],
        "report": ["mfh://fixture/report"],
    }


def test_params_are_typed_and_default_to_the_file(seen: Seen) -> None:
    params = seen.dag["params"]
    assert {name: (param["type"], param["default"]) for name, param in params.items()} == {
        "window_days": ("integer", 2),
        "treatment": ("string", "mfh"),
        "baseline": ("string", "ple"),
        "train_seed": ("integer", 7),
        "simulation_seed": ("integer", 11),
        "shards": ("integer", SHARDS),
        "promote": ("boolean", True),
        "let_gates_pass_because": (["null", "string"], None),
    }
    assert params["treatment"]["enum"] == params["baseline"]["enum"] == list(MODEL_KINDS)


def test_a_malformed_param_is_refused_before_anything_runs(seen: Seen) -> None:
    for (conf, name), refusal in zip(MALFORMED, seen.airflow["refusals"], strict=True):
        assert refusal is not None, conf
        assert name in refusal


def test_every_task_of_the_day_succeeds_at_once(seen: Seen) -> None:
    run = seen.airflow["day"]
    assert run["state"] == "success"
    expected = [[name, -1, "success", 1] for name in (*BY_NAME, "shards") if name != "simulate"]
    expected += [["simulate", shard, "success", 1] for shard in range(SHARDS)]
    assert run["tasks"] == sorted(expected)


def test_the_day_leaves_every_partition_in_the_lake(seen: Seen) -> None:
    data = {(p.manifest.dataset, p.manifest.day): p for p in partitions(seen.context.data)}
    runs = {(p.manifest.dataset, p.manifest.day): p for p in partitions(seen.context.runs)}
    history = [str(day) for day in day_range(FIRST, DAY)]
    for name in ("log", "users", "videos", "user_partial", "video_partial", "user_features", "video_features"):
        assert {(name, day) for day in history} <= set(data), name
    assert {("examples", str(day)) for day in (*TRAINED, HELD)} <= set(data)
    assert {("sessions", str(HELD)), ("session_videos", str(HELD))} <= set(data)
    checked = {("validation_log", str(day)) for day in (*TRAINED, HELD, DAY)}
    outputs = ["training_set", "model_treatment", "model_baseline", "evaluation", "response", "replay", "experiment"]
    outputs += [
        *("diagnostics", "report", "promotion"),
        *("validation_features", "validation_training_set", "validation_models"),
        *(f"rollouts-{n}-of-{SHARDS}" for n in range(SHARDS)),
    ]
    assert checked | {(name, str(DAY)) for name in outputs} <= set(runs)
    for key, partition in (data | runs).items():
        assert partition.manifest.files, key
        for file in partition.manifest.files:
            assert file.bytes > 0, (key, file)
            assert file.rows is None or file.rows > 0, (key, file)


def test_what_a_partition_was_made_from_is_what_the_lake_holds(seen: Seen) -> None:
    found = [*partitions(seen.context.data), *partitions(seen.context.runs)]
    hashes = {f"{p.manifest.dataset}/{p.manifest.day}": p.content_hash for p in found}
    for partition in found:
        for name, digest in partition.manifest.inputs.items():
            assert hashes[name] == digest, (partition.manifest.dataset, partition.manifest.day, name)
    without = {p.manifest.dataset for p in found if not p.manifest.inputs}
    assert without <= {"users", "videos", "requests", "quarantine"}, "only what comes from the feed has no inputs"


def test_what_the_tasks_returned_is_what_the_lake_holds(seen: Seen) -> None:
    for name, result in seen.airflow["day"]["returned"].items():
        for output, digest in {} if name == "shards" else result["outputs"].items():
            dataset, _, day = output.partition("/")
            one = date.fromisoformat(day)
            partition = seen.context.data.find(dataset, one) or seen.context.runs.get(dataset, one)
            assert partition.content_hash == digest, (name, output)


def test_the_experiment_keeps_the_calendar_and_the_report_says_its_verdict(seen: Seen) -> None:
    record = seen.context.runs.get("experiment", DAY).bytes("experiment.json")
    experiment = Experiment.model_validate_json(record)
    assert (experiment.day, experiment.holdout_day, experiment.return_day) == (str(DAY), str(HELD), str(DAY))
    assert {(arm.role, arm.first_day, arm.last_day) for arm in experiment.arms} == {
        (role, str(TRAINED[0]), str(TRAINED[-1])) for role in ("treatment", "baseline")
    }
    assert [one.day for one in experiment.data] == [str(day) for day in (*TRAINED, HELD, DAY)]
    assert experiment.users > 0
    assert experiment.metrics
    assert experiment.replay is not None
    assert experiment.agreement is not None
    assert {m.name for m in experiment.metrics} >= {"app_time", "trending_share", "creator_concentration"}
    for page in (
        seen.context.runs.get("report", DAY).bytes(DAY_PAGE).decode(),
        Path(find_report(seen.context, DAY)).read_text(encoding="utf-8"),
    ):
        assert experiment.verdict.sentence in page
        assert "Inside the models" in page
        assert "What the log alone says" in page


def test_a_day_without_earlier_days_fails_once_and_says_why(seen: Seen) -> None:
    run = seen.airflow["first_day"]
    assert run["state"] == "failed"
    states = {name: (state, tries) for name, _, state, tries in run["tasks"]}
    # Waiting does not mend it, so it is not tried again.
    assert states["dataset"] == ("failed", 1)
    assert states["validate_features"] == states["materialize"] == ("success", 1)
    assert states["promote"][0] == "upstream_failed"
    assert seen.context.runs.find("training_set", FIRST) is None
    assert "already holds" in run["returned"]["materialize"]["facts"]["skipped"]
