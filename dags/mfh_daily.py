"""One DAG per pipeline file: the day, from the feed's log to a promotion decision.

For a day *d*: **ingest** the feed's log of *d* into the lake; **validate** it (a broken day stops here);
**build features** per user and per video as of the end of *d*; **validate** them; **materialize** them into the
online store; assemble the point-in-time **training set** of the window that ends at *d*-2; **train** treatment
and baseline, one after the other on the GPU pool; **evaluate** both per task and per user group; **simulate**
both on the held-out sessions of *d*-1, sharded by user; **replay** that day's own log for both; **analyse** the
experiment; write the **report**; **decide** on promotion. Where the pipeline says ``diagnostics: true``, **diagnose**
what happens inside the treatment before the report is written.

The steps themselves live in ``components/``; each runs alone as ``mfh step NAME --date D``.
"""

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, Param, get_current_context, task

from components.config import MODEL_KINDS, Pipeline, Settings, load_pipeline
from components.steps import BY_NAME

SETTINGS = Settings()

# Minutes after which a task is stopped and retried: generous, only to end what hangs.
TIMEOUT_MIN = {"train_treatment": 240, "train_baseline": 240, "diagnose": 720, "simulate": 120, "respond": 120}
POOLS = {"train_treatment": "gpu", "train_baseline": "gpu", "diagnose": "gpu", "materialize": "online_store"}


def run(pipeline_name: str, name: str, shard: int | None = None) -> dict[str, Any]:
    """Run a step for the day of the current DAG run; errors that a person can mend are not retried."""
    from airflow.sdk.exceptions import AirflowFailException

    from components.context import Context
    from components.errors import (
        CheckpointError,
        ConfigError,
        SourceError,
        TrainingError,
        ValidationFailedError,
        WindowError,
    )
    from components.steps import run_step

    context = get_current_context()
    start = context["data_interval_start"]
    instance = context["ti"]
    pipeline = load_pipeline(SETTINGS.pipelines_dir / f"{pipeline_name}.yaml").override(dict(context["params"]))
    if start is None:
        raise AirflowFailException("this run has no data interval: start it from the schedule or as a backfill")
    day = start.astimezone(pipeline.feed.zone).date()
    identity = {"run_id": instance.run_id, "try": instance.try_number, "map_index": instance.map_index}
    try:
        (result,) = run_step(Context(pipeline, SETTINGS, run=identity), name, day, shard)
    except (CheckpointError, ConfigError, SourceError, TrainingError, ValidationFailedError, WindowError) as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    return result.record()


def params_of(pipeline: Pipeline) -> dict[str, Param]:
    """Typed parameters of a run; the defaults are the pipeline file's."""
    models = [*sorted(pipeline.models), *MODEL_KINDS]
    return {
        "window_days": Param(pipeline.train.window_days, type="integer", minimum=1, maximum=365),
        "treatment": Param(pipeline.treatment, type="string", enum=models),
        "baseline": Param(pipeline.baseline, type="string", enum=models),
        "train_seed": Param(pipeline.train.seed, type="integer", minimum=0),
        "simulation_seed": Param(pipeline.simulator.seed, type="integer", minimum=0),
        "shards": Param(pipeline.simulator.shards, type="integer", minimum=1, maximum=512),
        "promote": Param(pipeline.promote, type="boolean"),
    }


def build(pipeline: Pipeline) -> DAG:
    """The DAG of one pipeline."""
    # Airflow's serialization takes pendulum's zones only.
    zone = pendulum.timezone(pipeline.feed.timezone)
    feed = pipeline.feed
    last = feed.last_day
    dag = DAG(
        dag_id=f"mfh_daily_{pipeline.name}",
        description=pipeline.description or "Train MFH daily and A/B test it in simulation",
        schedule=CronDataIntervalTimetable("0 0 * * *", timezone=zone),
        start_date=pendulum.datetime(feed.first_day.year, feed.first_day.month, feed.first_day.day, tz=zone),
        end_date=pendulum.datetime(last.year, last.month, last.day, tz=zone) if last else None,
        catchup=False,
        max_active_runs=4,
        params=params_of(pipeline),
        tags=["mfh", pipeline.feed.kind],
        doc_md=__doc__,
        default_args={
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=10),
            "execution_timeout": timedelta(minutes=60),
        },
    )
    with dag:
        wire(pipeline)
    return dag


def wire(pipeline: Pipeline) -> None:
    """The steps and what waits for what."""

    def step(name: str, **extra: Any) -> Any:
        options = {
            "task_id": name,
            "pool": POOLS.get(name, "default_pool"),
            "execution_timeout": timedelta(minutes=TIMEOUT_MIN.get(name, 60)),
            "doc_md": f"{BY_NAME[name].meaning}\n\nBy hand: `mfh step {name} --pipeline {pipeline.name} --date DAY`",
            **extra,
        }

        @task(**options)
        def work() -> dict[str, Any]:
            return run(pipeline.name, name)

        return work()

    @task(task_id="shards", doc_md="The shards of users that are simulated side by side.")
    def shards() -> list[int]:
        return list(range(get_current_context()["params"]["shards"]))

    @task(
        task_id="simulate",
        map_index_template="shard {{ task.op_kwargs['shard'] }}",
        execution_timeout=timedelta(minutes=TIMEOUT_MIN["simulate"]),
        doc_md=BY_NAME["simulate"].meaning,
    )
    def simulate(shard: int) -> dict[str, Any]:
        return run(pipeline.name, "simulate", shard)

    asset = f"mfh://{pipeline.name}"
    ingest, features = step("ingest"), step("features")
    validate_log, validate_features = step("validate_log"), step("validate_features")
    materialize, dataset = step("materialize"), step("dataset")
    treatment = step("train_treatment", outlets=[Asset(f"{asset}/model/treatment")])
    baseline = step("train_baseline", outlets=[Asset(f"{asset}/model/baseline")])
    evaluate, respond, replay, analyse = step("evaluate"), step("respond"), step("replay"), step("analyse")
    report = step("report", outlets=[Asset(f"{asset}/report")])
    promote = step("promote")
    rollouts = simulate.expand(shard=shards())

    ingest >> validate_log >> features >> validate_features >> [materialize, dataset]
    dataset >> [treatment, respond]
    treatment >> baseline >> evaluate
    # Replay compares with the response model too.
    [baseline, respond] >> rollouts
    [baseline, respond] >> replay
    [evaluate, rollouts, replay] >> analyse >> report
    [report, materialize] >> promote
    if pipeline.diagnostics:
        # Behind both arms, which the rest of the day waits for and which need the same pool.
        baseline >> step("diagnose") >> report


for file in sorted(SETTINGS.pipelines_dir.glob("*.yaml")):
    # A file that can not be read shows as an import error in the UI, with its reason.
    pipeline = load_pipeline(file)
    globals()[f"mfh_daily_{pipeline.name}"] = build(pipeline)
