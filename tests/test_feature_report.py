"""The page of a day's inputs: what it says is what the examples and the models say."""

import json
from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pytest

from components.context import Context
from components.dataset import read_examples
from components.errors import MissingPartitionError
from components.feature_report import PAGE, RECORD, feature_report, render, sampled
from components.feed.source import features_of
from components.inputs import GROUPS, input_spec
from components.steps import run_step
from components.train import train
from tests.small_lake import settings_at
from tests.test_train import pipeline

pytestmark = pytest.mark.integration

DAY = date(2026, 1, 5)
HELD = date(2026, 1, 4)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A tiny world with both arms trained for one step or two."""
    chosen = Context(pipeline(epochs=1), settings_at(tmp_path_factory.mktemp("inputs")))
    for step in ("ingest", "features", "dataset"):
        run_step(chosen, step, DAY)
    with pytest.raises(MissingPartitionError, match="model_treatment"):
        feature_report(chosen, DAY)
    for role in ("treatment", "baseline"):
        train(chosen, DAY, role)
    return chosen


def test_the_report_says_what_the_examples_say_and_the_page_shows_it(context: Context) -> None:
    result = feature_report(context, DAY)
    partition = context.runs.get("feature_report", DAY)
    record = partition.json(RECORD)
    names = set(input_spec(features_of(context.pipeline.feed)).columns) - {"user_id", "video_id"}
    found = {one["name"]: one for one in record["features"]}
    assert found.keys() == names
    assert (record["holdout_day"], record["reference_days"]) == (str(HELD), ["2026-01-02", "2026-01-03"])

    threshold = context.runs.get("training_set", DAY).json("training_set.json")["activity_threshold"]
    table = read_examples(context, [HELD], threshold)
    assert record["rows"] == table.num_rows
    watched = found["user_impressions_7d"]
    assert watched["all"]["coverage"] == pytest.approx(pc.mean(pc.greater(table["user_impressions_7d"], 0)).as_py())
    assert watched["all"]["mean"] == pytest.approx(pc.mean(table["user_impressions_7d"]).as_py())
    assert sum(watched["groups"][group]["rows"] for group in GROUPS) == table.num_rows
    assert found["surface"]["all"]["top"][0] in table["surface"].to_pylist()
    assert {name for one in found.values() for name in one["importance"]} == {"treatment", "baseline"}
    assert any(one["importance"]["treatment"] for one in found.values())
    assert all(one["psi"] is not None and one["psi"] >= 0 for one in found.values())
    order = [one["importance"]["treatment"] or 0.0 for one in record["features"]]
    assert order == sorted(order, reverse=True)

    page = Path(partition.aside(PAGE)).read_text(encoding="utf-8")
    assert result.facts["page"] == partition.aside(PAGE)
    assert [name for name in names if f"<code>{name}</code>" not in page] == []
    assert "http://" not in page
    assert "https://" not in page
    assert result.facts["top_treatment"][0] == record["features"][0]["name"]


def test_the_same_day_again_gives_the_same_record(context: Context) -> None:
    first = feature_report(context, DAY).outputs
    assert feature_report(context, DAY).outputs == first


def test_samples_are_rows_of_the_table_in_its_order(context: Context) -> None:
    table = read_examples(context, [HELD], 1.0)
    few = sampled(table, 50)
    assert few.num_rows == 50
    assert sampled(table, table.num_rows) is table
    times = few["event_time"].to_pylist()
    rows = [table["event_time"].to_pylist().index(one) for one in times]
    assert rows == sorted(rows)


def test_names_from_the_feed_are_escaped(context: Context) -> None:
    from dataclasses import replace

    from components.feature_report import measure

    record = json.loads(context.runs.get("training_set", DAY).bytes("training_set.json"))
    report = measure(context, DAY, record | {"train_days": []})
    assert {one.psi for one in report.features} == {None}
    bad = replace(report.features[0], name="<script>alert(1)</script>")
    page = render(replace(report, features=(bad, *report.features[1:])))
    assert "<script>" not in page
    assert "no day of the week before" in page
