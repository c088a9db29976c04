"""Every step's end is told: one log line, metrics to a real receiver, lineage to a real receiver; and none can harm."""

import json
import logging
import socket
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import ValidationError

from components.config import Settings
from components.context import Context, StepResult, inputs_of
from components.errors import TrainingError
from components.observe import observed
from components.telemetry import Ended, measurements
from tests.receivers import http_receiver, udp_receiver
from tests.simulator.experiment_example import example
from tests.small_lake import context_at, day_at

DAY = day_at(4)


def at(tmp_path: Path, **settings: Any) -> Context:
    context = context_at(tmp_path)
    return replace(context, settings=context.settings.model_copy(update=settings))


def copy(context: Context, day: date, shard: int = 0) -> StepResult:
    """A step that reads one partition and writes another."""
    source = context.data.get("log", day)
    with context.runs.write("copied", day, inputs=inputs_of(source)) as writer:
        writer.table(source.table())
    facts = {"rows": source.rows, "refused": {"duplicate": 2}, "share": 0.25, "note": 'two "words"', "fine": True}
    return StepResult("copy", day, inputs_of(context.runs.get("copied", day)), facts)


def refuse(context: Context, day: date) -> StepResult:
    raise TrainingError(f"loss of {day} is not finite; see postgresql://u:hunter2secret@db/x and {SECRET}")


SECRET = "s3cretvalue"


def logged(context: Context) -> None:
    with context.data.write("log", DAY) as writer:
        writer.table(pa.table({"user_id": pa.array([1, 2, 3], pa.int64()), "surface": ["a", "b", "c"]}))


@pytest.mark.parametrize("form", ["key_value", "json"])
def test_a_step_ends_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str) -> None:
    context = at(tmp_path, log_format=form)
    logged(context)
    with caplog.at_level(logging.INFO, "mfh"):
        observed(copy, context, "copy", DAY, {})
    (message,) = [record.getMessage() for record in caplog.records]
    if form == "json":
        fields = json.loads(message)
        assert (fields["step"], fields["state"], fields["rows"]) == ("copy", "done", 3)
        assert fields["refused"] == {"duplicate": 2}
    else:
        assert message.startswith(f"step=copy day={DAY} state=done seconds=0.")
        assert message.endswith('rows=3 refused={"duplicate": 2} share=0.25 note="two \\"words\\"" fine=true')


def test_a_failure_is_one_line_without_secrets_and_stays_the_error_that_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = at(tmp_path, lake_secret_key=SECRET)
    with caplog.at_level(logging.INFO, "mfh"), pytest.raises(TrainingError, match="not finite"):
        observed(refuse, context, "refuse", DAY, {})
    (message,) = [record.getMessage() for record in caplog.records]
    assert "state=failed" in message
    assert "TrainingError: loss of" in message
    assert "postgresql://u:***@db/x" in message
    assert SECRET not in message
    assert "\n" not in message


def test_statsd_receives_durations_rows_and_rates(tmp_path: Path) -> None:
    with udp_receiver() as (port, lines):
        context = at(tmp_path, metrics=f"statsd://127.0.0.1:{port}/acme/mfh")
        logged(context)
        observed(copy, context, "copy", DAY, {"shard": 1})
        with pytest.raises(TrainingError):
            observed(refuse, context, "refuse", DAY, {})
    names = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    assert names["acme.mfh.small.copy.shard1.rows"] == "3.0|g"
    assert names["acme.mfh.small.copy.shard1.refused.duplicate"] == "2.0|g"
    assert names["acme.mfh.small.copy.shard1.share"] == "0.25|g"
    assert names["acme.mfh.small.copy.shard1.step.done"] == "1|c"
    assert names["acme.mfh.small.copy.shard1.step.duration"].endswith("|ms")
    assert float(names["acme.mfh.small.copy.shard1.rows_per_s"].removesuffix("|g")) > 3
    assert names["acme.mfh.small.refuse.step.failed"] == "1|c"
    assert not [name for name in names if "fine" in name], "what is true or false is no number"


def test_opentelemetry_receives_the_same_with_attributes(tmp_path: Path) -> None:
    with http_receiver() as received:
        context = at(tmp_path, metrics=f"otlp+{received.url}")
        logged(context)
        observed(copy, context, "copy", DAY, {})
    ((path, _, body),) = received.requests
    assert path == "/v1/metrics"
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    assert ("service.name", "mfh-pipeline") in {(a.key, a.value.string_value) for a in resource.resource.attributes}
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    (rows,) = metrics["mfh.rows"].gauge.data_points
    assert rows.as_double == 3
    assert {a.key: a.value.string_value for a in rows.attributes} == {"pipeline": "small", "step": "copy"}
    assert metrics["mfh.step.duration"].histogram.data_points[0].count == 1
    assert metrics["mfh.step.done"].sum.data_points[0].as_int == 1


def test_a_training_tells_its_losses_and_an_analysis_its_lifts(tmp_path: Path) -> None:
    context = at(tmp_path)
    losses = [(1, 0.9, 0.8), (2, 0.7, 0.6)]
    history = [
        {"step": step, "task": "like", "group": group, "train_loss": train, "valid_loss": valid}
        for step, train, valid in losses
        for group in (None, "new")
    ]
    with context.runs.write("model_treatment", DAY) as writer:
        writer.json("bundle.json", {"step": 2, "history": history})
    with context.runs.write("experiment", DAY) as writer:
        writer.text("experiment.json", example().model_dump_json())
    trained = measurements(context, Ended("train_treatment", DAY, None, "done", 1.0, StepResult("t", DAY)))
    found = {(one.name, one.labels.get("group")): one.value for one in trained if one.name.startswith("loss")}
    assert found == {
        ("loss.train", "all"): 0.7,
        ("loss.train", "new"): 0.7,
        ("loss.valid", "all"): 0.6,
        ("loss.valid", "new"): 0.6,
    }
    analysed = measurements(context, Ended("analyse", DAY, None, "done", 1.0, StepResult("a", DAY)))
    lifts = {(o.labels["metric"], o.labels["segment"], o.name): o.value for o in analysed if "lift" in o.name}
    (wanted,) = [m for m in example().metrics if m.name == "app_time" and m.segment == "new"]
    assert lifts["app_time", "new", "lift_percent.value"] == wanted.relative.value
    assert lifts["app_time", "new", "lift_percent.low"] == wanted.relative.low


def test_a_gauge_below_nothing_is_sent_as_such(tmp_path: Path) -> None:
    def lose(context: Context, day: date) -> StepResult:
        return StepResult("lose", day, facts={"lift": -1.5})

    with udp_receiver() as (port, lines):
        observed(lose, at(tmp_path, metrics=f"statsd://127.0.0.1:{port}"), "lose", DAY, {})
    assert [line for line in lines if ".lift:" in line] == ["mfh.small.lose.lift:0|g", "mfh.small.lose.lift:-1.5|g"]


def test_lineage_names_partitions_with_their_content_hashes(tmp_path: Path) -> None:
    with http_receiver() as received:
        context = at(tmp_path, lineage_url=received.url, lineage_namespace="recs", lineage_api_key="key123")
        logged(context)
        result = observed(copy, context, "copy", DAY, {"shard": 0})
        with pytest.raises(TrainingError):
            observed(refuse, context, "refuse", DAY, {})
    assert {path for path, _, _ in received.requests} == {"/api/v1/lineage"}
    assert {headers["Authorization"] for _, headers, _ in received.requests} == {"Bearer key123"}
    start, done, began, failed = [json.loads(body) for _, _, body in received.requests]
    assert [one["eventType"] for one in (start, done, began, failed)] == ["START", "COMPLETE", "START", "FAIL"]
    assert start["run"]["runId"] == done["run"]["runId"] != failed["run"]["runId"]
    assert (done["job"]["namespace"], done["job"]["name"]) == ("recs", "small.copy.shard0")
    # Midnight in Shanghai is 16:00 of the day before in UTC.
    assert done["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2024-03-07T16:00:00+00:00"
    (read,), (written,) = done["inputs"], done["outputs"]
    log, copied = context.data.get("log", DAY), context.runs.get("copied", DAY)
    assert read["name"] == str(Path(log.folder).parent)
    assert read["facets"]["version"]["datasetVersion"] == log.content_hash
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert written["name"] == str(Path(copied.folder).parent)
    assert written["facets"]["version"]["datasetVersion"] == result.outputs[f"copied/{DAY}"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert [(one["name"], one["type"]) for one in written["facets"]["schema"]["fields"]] == [
        ("user_id", "int64"),
        ("surface", "string"),
    ]
    assert "hunter2secret" not in failed["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.parametrize("receiver", ["refuses", "fails"])
def test_receivers_that_are_down_never_fail_a_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, receiver: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with http_receiver(status=400) as received:
        url = received.url if receiver == "fails" else url
        context = at(tmp_path, lineage_url=url, metrics="statsd://no-such-host.invalid:8125")
        logged(context)
        with caplog.at_level(logging.WARNING, "mfh"):
            assert observed(copy, context, "copy", DAY, {}).facts["rows"] == 3
    warned = [record.getMessage() for record in caplog.records if record.name == "mfh"]
    assert len([text for text in warned if text.startswith(f"lineage of step copy for {DAY} was not sent")]) == 2
    assert len([text for text in warned if text.startswith(f"metrics of step copy for {DAY} were not sent")]) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics", "udp://127.0.0.1:8125"),
        ("metrics", "statsd://"),
        ("lineage_url", "file:///etc/passwd"),
        ("alert_url", "hooks.example.com"),
        ("log_format", "xml"),
        ("report_due_min", "0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MFH_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()
