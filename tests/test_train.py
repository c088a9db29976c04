"""The train step on a small world's lake: validation day, warm start, search, several processes, MLflow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.config import Pipeline, parse_pipeline
from components.context import Context
from components.dataset import read_examples
from components.models import bundle
from components.models.mtnas import Route
from components.steps import run_step
from components.train import bundle_files, train
from tests.conftest import CHECKOUT
from tests.small_lake import settings_at

pytestmark = pytest.mark.integration

DAY = date(2026, 1, 5)
BEFORE = date(2026, 1, 4)
SIZES = {
    "level0_width": 16,
    "level1": {"widths": [16, 8]},
    "deeper": {"kind": "cgc", "widths": [8], "experts": 1, "shared": 1},
    "tower_widths": [8],
    "small_tower_widths": [8],
    "search": {"layers": 2, "blocks": 2},
}


def pipeline(**train_settings: Any) -> Pipeline:
    data = {
        "name": "tiny",
        "feed": {
            "kind": "world",
            "first_day": "2026-01-01",
            "last_day": "2026-01-06",
            "users": 200,
            "new_users_per_day": 10,
            "videos": 120,
            "new_videos_per_day": 10,
        },
        "groups": {"new_tenure_days": 14},
        "sizes": SIZES,
        "train": {"window_days": 2, "epochs": 2, "batch_size": 500, "device": "cpu"} | train_settings,
    }
    return parse_pipeline(data, where="test")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with everything before training of two interval days."""
    folder = tmp_path_factory.mktemp("train")
    for day in (BEFORE, DAY):
        for step in ("ingest", "features"):
            run_step(at(folder), step, day)
    return folder


def at(home: Path, mlflow: str = "", **train_settings: Any) -> Context:
    settings = settings_at(home)
    return Context(pipeline(**train_settings), settings.model_copy(update={"mlflow_uri": mlflow}))


def prepared(context: Context, *days: date) -> Context:
    """The training set depends on the configuration, so each has its own."""
    for day in days:
        run_step(context, "dataset", day)
    return context


def trained(context: Context, day: date = DAY) -> bundle.Fitted:
    return bundle.load(bundle_files(context.runs.get("model_treatment", day)))


def test_the_windows_last_day_stops_training_early(home: Path) -> None:
    context = prepared(at(home, patience=1, epochs=4), DAY)
    train(context, DAY, "treatment")
    fitted = trained(context)
    rows = {day: read_examples(context, [date(2026, 1, day)], 1.0, ["user_id"]).num_rows for day in (2, 3)}
    assert fitted.extra["validation_days"] == ["2026-01-03"]
    assert fitted.rows == rows[2]
    assert fitted.scores
    assert {one.valid_entries for one in fitted.history if one.group is None} == {rows[3]}


def test_a_window_of_one_day_has_no_day_to_spare(home: Path) -> None:
    context = prepared(at(home, patience=1, window_days=1), DAY)
    result = train(context, DAY, "treatment")
    assert any("no validation day" in text for text in result.facts["warnings"])
    assert trained(context).scores == ()


def test_a_warm_start_begins_with_yesterdays_weights_and_names_them(home: Path) -> None:
    context = prepared(at(home, warm_start=True, learning_rate=1e-9, weight_decay=0.0), BEFORE, DAY)
    cold = train(context, BEFORE, "treatment")
    assert any(text.startswith("cold start: the lake has no model_treatment") for text in cold.facts["warnings"])
    warm = train(context, DAY, "treatment")
    assert not warm.facts["warnings"]
    # With steps of almost nothing the weights are where they started.
    for mine, theirs in zip(
        trained(context).model.network.parameters(), trained(context, BEFORE).model.network.parameters(), strict=True
    ):
        assert np.allclose(mine.detach(), theirs.detach(), atol=1e-5)
    partition = context.runs.get("model_treatment", DAY)
    start = context.runs.get("model_treatment", BEFORE).content_hash
    assert partition.manifest.inputs[f"model_treatment/{BEFORE}"] == start
    assert trained(context).extra["inputs"][f"model_treatment/{BEFORE}"] == start


def test_mtnas_searches_its_route_and_trains_it(home: Path) -> None:
    context = at(home)
    context = prepared(replace(context, pipeline=context.pipeline.override({"treatment": "mtnas"})), DAY)
    train(context, DAY, "treatment")
    fitted = trained(context)
    assert fitted.recipe.kind == "mtnas"
    assert Route.parse(fitted.recipe.search.route).text() == fitted.recipe.search.route


@pytest.mark.parametrize("hosts", [1, 2])
def test_processes_that_torchrun_starts_share_a_training(
    home: Path, tmp_path: Path, hosts: int, free_port: Callable[[], int]
) -> None:
    context = prepared(at(home), DAY)
    train(context, DAY, "treatment")
    alone = trained(context)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(context.pipeline.model_dump(mode="json")), encoding="utf-8")
    # As deploy/README.md says it: the same line on every host.
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "mfh"]
    shape = ["--nnodes", str(hosts), "--nproc-per-node", str(2 // hosts)]
    command = [sys.executable, "-m", "torch.distributed.run", *shape, *meet, "--local-addr", "127.0.0.1", "-m"]
    command += ["components.cli", "step", "train_treatment", "--date", DAY.isoformat(), "--pipeline", str(file)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MFH_")}
    environment |= {"MFH_LAKE": context.settings.lake_root, "MFH_MLFLOW_URI": ""}
    started = [
        subprocess.Popen(
            command,
            cwd=CHECKOUT,
            # Hosts share nothing but the lake.
            env=environment | {"MFH_HOME": str(tmp_path / f"host-{host}")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(hosts)
    ]
    ended = [host.communicate(timeout=240) for host in started]
    assert [host.returncode for host in started] == [0] * hosts, ended
    lines = [line for output, _ in ended for line in output.splitlines()]
    records = [json.loads(line) for line in lines if line.startswith("{")]
    # Both processes tell of the one bundle that the first has written.
    assert len(records) == 2
    assert records[0]["outputs"] == records[1]["outputs"]
    together = trained(context)
    assert together.step == alone.step
    for mine, theirs in zip(together.history, alone.history, strict=True):
        assert mine.train_entries == theirs.train_entries
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


def test_a_training_is_one_run_in_mlflow_with_settings_and_curves(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    context = prepared(at(home, mlflow=uri), DAY)
    first, again = (train(context, DAY, "treatment").facts["mlflow"] for _ in range(2))
    assert first == again
    run = MlflowClient(uri).get_run(first)
    assert run.data.tags["bundle"] == context.runs.get("model_treatment", DAY).content_hash
    assert run.data.params["train.epochs"] == "2"
    curve = MlflowClient(uri).get_metric_history(first, "finish/all/train_loss")
    assert [one.value for one in curve] == [
        pytest.approx(one.train_loss) for one in trained(context).history if one.task == "finish" and one.group is None
    ]
