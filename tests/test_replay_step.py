"""The replay step over a small lake: what it reads, what it writes, and that it writes the same again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.context import Context
from components.errors import MissingPartitionError
from components.feed.schema import REQUESTS
from components.replay import replay
from components.train import train
from simulator.agreement import Agreement
from simulator.offpolicy.record import OffPolicy
from tests.small_lake import context_at, day_at, write
from tests.test_agreement_step import Knowing
from tests.test_diagnose import PIPELINE, examples
from tests.test_heldout import write_heldout
from tests.test_replay import VIDEOS, logged_day

HELD, DAY, TRAINED = day_at(0), day_at(1), day_at(-1)


@pytest.fixture(autouse=True)
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The response model of the lake is a stand-in."""
    monkeypatch.setattr("components.agreement.load_response", lambda _: Knowing(lambda ids: ids - 9.0))


def prepared(home: Path, with_requests: bool) -> Context:
    """A lake in which both arms have been trained on the day before the held-out one."""
    context = context_at(home, **PIPELINE)
    write(context, "examples", TRAINED, examples(np.random.default_rng(0), 300))
    record = {"train_days": [TRAINED.isoformat()], "holdout_day": HELD.isoformat(), "return_day": DAY.isoformat()}
    with context.runs.write("training_set", DAY, context.pipeline.config_hash) as writer:
        writer.json("training_set.json", record | {"rows": 300, "activity_threshold": 0.0})
    rows, requests = logged_day(60)
    write_heldout(context, rows, requests={500: list(VIDEOS)} if with_requests else None)
    if with_requests:
        write(context, "requests", HELD, pa.Table.from_pylist(requests, schema=REQUESTS))
    for role in ("treatment", "baseline"):
        train(context, DAY, role)
    with context.runs.write("response", DAY) as writer:
        writer.json("response.json", {})
    return context


def test_a_day_with_requests_is_replayed_alike_each_time(tmp_path: Path) -> None:
    context = prepared(tmp_path, with_requests=True)
    result = replay(context, DAY)
    partition = context.runs.get("replay", DAY)
    found = OffPolicy.model_validate(partition.json("replay.json"))
    assert (found.day, found.rounds, found.reason) == (HELD.isoformat(), 180, None)
    assert {cell.part for cell in found.cells} == {"logged", "uniform", "sessions"}
    assert any(cell.difference.value is not None for cell in found.cells)
    assert result.facts["rounds"] == 180
    assert result.facts["differences"] + result.facts["refused"] == len(found.cells)
    inputs = {name.split("/")[0] for name in partition.manifest.inputs}
    assert inputs == {"training_set", "response", "model_treatment", "model_baseline", "log", "requests"}
    agreed = Agreement.model_validate(partition.json("agreement.json"))
    assert agreed.state == result.facts["agreement"] == "not powered"
    assert "effective sample size" in agreed.detail
    assert replay(context, DAY).outputs == result.outputs


def test_a_day_without_anything_to_replay_says_why(tmp_path: Path) -> None:
    context = prepared(tmp_path, with_requests=False)
    facts = replay(context, DAY).facts
    assert "neither candidate sets" in facts["reason"]
    partition = context.runs.get("replay", DAY)
    assert partition.json("replay.json")["cells"] == []
    assert partition.json("agreement.json")["state"] == facts["agreement"] == "missing"


def test_a_day_that_was_not_trained_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingPartitionError, match="training_set"):
        replay(context_at(tmp_path), DAY)
