"""The deployed champion as the treatment's second opponent, on a real day of the KuaiRand fixture.

The known answer: a champion with the weights of the day's baseline must give the experiment's own numbers, to the
last digit, although only the champion is rolled out anew.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from components.config import Settings, parse_pipeline
from components.context import Context
from components.errors import MissingPartitionError, ModelRegistryError
from components.feature_list import service_name
from components.feed.source import features_of
from components.lake import Partition
from components.model_registry import CHAMPION, Registry
from components.models import bundle
from components.promote import promote
from components.report import read_experiment
from components.second_comparison import Comparison, compare_champion, misfit, read_comparison
from components.steps import run_step
from components.train import bundle_files
from tests.test_dag import FIXTURE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DAY = date(2022, 4, 30)
STEPS = (
    *("ingest", "validate_log", "features", "validate_features", "dataset"),
    *("train_treatment", "train_baseline", "evaluate"),
    *("respond", "simulate", "replay", "analyse"),
)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Context:
    """A day up to its analysis."""
    home = tmp_path_factory.mktemp("champion")
    feed = {**FIXTURE["feed"], "folder": str(test_data / "kuairand_fixture")}  # type: ignore[dict-item]
    simulator = {**FIXTURE["simulator"], "fusion_trials": 0}  # type: ignore[dict-item]
    data = FIXTURE | {
        "feed": feed,
        "diagnostics": False,
        "promotion": {"champion": "rollouts"},
        "simulator": simulator,
    }
    context = Context(parse_pipeline(data, "test"), Settings(home=home, lake="", mlflow_uri="", feast_registry=""))
    for step in STEPS:
        run_step(context, step, DAY)
    return context


@pytest.fixture
def context(analysed: Context) -> Iterator[Context]:
    """The same day for every test, with no champion at the end of each."""
    yield analysed
    registry = Registry(analysed, create=True)
    if CHAMPION in registry.aliases():
        registry.client.delete_registered_model_alias(registry.name, CHAMPION)


def asking(context: Context, champion: str) -> Context:
    promotion = context.pipeline.promotion.model_copy(update={"champion": champion})
    return replace(context, pipeline=context.pipeline.model_copy(update={"promotion": promotion}))


def twin(context: Context, **facts: Any) -> Partition:
    """A bundle with the weights of the day's baseline and other facts beside them, so another content hash."""
    fitted = bundle.load(bundle_files(context.runs.get("model_baseline", DAY)))
    with context.runs.write("model_twin", DAY, context.pipeline.config_hash) as writer:
        for name, data in bundle.save(fitted, {**fitted.extra, "twin": True, **facts}).items():
            writer.bytes(name, data)
    return context.runs.get("model_twin", DAY)


def serve(context: Context, partition: Partition) -> str:
    registry = Registry(context, create=True)
    number = registry.register(DAY, "treatment", partition).number
    registry.client.set_registered_model_alias(registry.name, CHAMPION, number)
    return number


def compared(context: Context) -> Comparison:
    compare_champion(context, DAY)
    return Comparison.model_validate_json(context.runs.get("champion", DAY).bytes("champion.json"))


def test_a_champion_like_the_baseline_gives_the_experiments_own_numbers(context: Context) -> None:
    number = serve(context, twin(context))
    record, experiment = compared(context), read_experiment(context, DAY)
    assert (record.version, record.reason) == (number, "")
    assert record.last_day == "2022-04-28"
    assert record.metrics == experiment.metrics
    assert record.verdict is not None
    assert record.verdict.sentence == experiment.verdict.sentence
    assert record.quality == tuple(one for one in experiment.quality if one.arm == "baseline")
    assert read_comparison(context, DAY) == record
    promote(context, DAY)
    decision = context.runs.get("promotion", DAY).json("decision.json")
    assert [one["name"] for one in decision["guardrails"]] == [
        "quality against the baseline",
        f"quality against champion {number}",
        f"rollouts against champion {number}",
    ]


def test_offline_compares_quality_alone_and_needs_no_rollouts(context: Context) -> None:
    serve(context, twin(context))
    record = compared(asking(context, "offline"))
    assert record.verdict is None
    assert record.metrics == ()
    assert {one.metric for one in record.quality} >= {"auc", "gauc", "mse"}


def test_without_a_champion_of_another_kind_there_is_nothing_to_compare(context: Context) -> None:
    assert compared(context).reason == "no version is the champion yet"
    assert read_comparison(context, DAY) is None
    number = serve(context, context.runs.get("model_treatment", DAY))
    assert compared(context).reason == f"the champion, version {number}, is this treatment"
    number = serve(context, context.runs.get("model_baseline", DAY))
    assert "the experiment is that comparison" in compared(context).reason


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"train_days": ["2022-04-28", "2022-04-29"]}, "it has learned from days after 2022-04-28"),
        ({"feature_service": "mfh_ranking_v0"}, "it reads the feature service 'mfh_ranking_v0'"),
    ],
)
def test_a_champion_that_does_not_fit_the_day_is_named_and_left_out(
    context: Context, facts: dict[str, Any], reason: str
) -> None:
    serve(context, twin(context, **facts))
    assert reason in compared(context).reason
    assert read_comparison(context, DAY) is None


def test_what_fits_is_decided_by_what_training_recorded(analysed: Context) -> None:
    tasks = [task.name for task in analysed.pipeline.tasks]
    served = service_name(features_of(analysed.pipeline.feed))
    right = {"feature_service": served, "train_days": ["2022-04-27", "2022-04-28"], "tasks": tasks}
    assert misfit(analysed, DAY, right) == ""
    assert "its tasks are ['like']" in misfit(analysed, DAY, right | {"tasks": ["like"]})
    assert "must not know" in misfit(analysed, date(2022, 4, 29), right), "an older day looks at nothing newer"
    assert "must not know" in misfit(analysed, DAY, right | {"train_days": []})


def test_a_champion_whose_bundle_was_changed_is_an_error(context: Context) -> None:
    partition = twin(context, changed=True)
    serve(context, partition)
    path = Path(partition.url("bundle.json"))
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"rows": 1}))
    with pytest.raises(ModelRegistryError, match="is not the one that was registered"):
        compare_champion(context, DAY)
    path.write_text(kept)
    assert compared(asking(context, "offline")).reason == ""


def test_a_comparison_of_another_treatment_does_not_count(context: Context) -> None:
    compared(context)
    partition = context.runs.get("champion", DAY)
    with context.runs.write("champion", DAY, context.pipeline.config_hash, {"model_treatment/2022-04-30": "0"}) as one:
        one.bytes("champion.json", partition.bytes("champion.json"))
    with pytest.raises(MissingPartitionError, match="made of another treatment"):
        read_comparison(context, DAY)
    assert read_comparison(asking(context, "none"), DAY) is None
