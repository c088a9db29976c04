"""Days that were analysed and bundles that look like trained ones, for the tests of promotion: a pytest plugin."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.context import Context
from components.feature_list import service_name
from components.feed.source import features_of
from simulator.experiment import Decision
from tests.simulator.experiment_example import example
from tests.small_lake import context_at

NAME = "mfh_small"


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with all its tables and nothing in them: making it takes seconds."""
    home = tmp_path_factory.mktemp("registry")
    (home / "mlflow").mkdir()
    uri = context_at(home).settings.mlflow_tracking_uri
    assert list(MlflowClient(uri, uri).search_registered_models()) == []
    return home / "mlflow" / "mlflow.db"


@pytest.fixture
def registry_context(empty_registry: Path, tmp_path: Path) -> Context:
    """A pipeline that promotes, over a registry that is empty."""
    (tmp_path / "home" / "mlflow").mkdir(parents=True)
    shutil.copy(empty_registry, tmp_path / "home" / "mlflow" / "mlflow.db")
    return context_at(tmp_path / "home", promote=True)


def analysed(context: Context, day: date, decision: Decision, weights: str = "", service: str | None = None) -> None:
    """The day's experiment and bundles, as the steps before would have left them."""
    record = example()
    served = service or service_name(features_of(context.pipeline.feed))
    verdict = record.verdict.model_copy(update={"decision": decision})
    with context.runs.write("experiment", day, context.pipeline.config_hash) as writer:
        writer.text("experiment.json", record.model_copy(update={"verdict": verdict}).model_dump_json())
    for role in ("treatment", "baseline"):
        facts = {"feature_service": served, "train_days": [], "role": role, "day": str(day)}
        content = {"extra": facts, "tasks": [{"name": task.name} for task in context.pipeline.tasks]}
        with context.runs.write(f"model_{role}", day, context.pipeline.config_hash) as writer:
            writer.bytes("weights.safetensors", f"{role} of {day}{weights}".encode())
            writer.bytes("bundle.json", json.dumps(content).encode())


def client_of(context: Context) -> MlflowClient:
    """MLflow's own client of the same registry."""
    uri = context.settings.mlflow_tracking_uri
    return MlflowClient(uri, uri)
