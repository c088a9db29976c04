"""One DAG per pipeline file: the day, from the feed's log to a promotion decision.

For a day *d*: **ingest** the feed's log of *d* into the lake; **validate** it (a broken day stops here);
**build features** per user and per video as of the end of *d*; **validate** them; **materialize** them into the
online store; assemble the point-in-time **training set** of the window that ends at *d*-2, and **validate** it;
**train** treatment and baseline, one after the other on the GPU pool; **evaluate** both per task and per user group,
and **validate** what they predict; **simulate** both on the held-out sessions of *d*-1, sharded by user; **replay**
that day's own log for both; **analyse** the experiment; write the **report**; **decide** on promotion. Where the
pipeline says ``diagnostics: true``, **diagnose** what happens inside the treatment before the report is written.

A gate that fails stops its branch of the day; its task's log and result name the Data Docs page. ``mfh gate pass``
with a reason, then clearing the failed task, lets the day go on; so does a run or backfill of the day with the reason
as its parameter ``let_gates_pass_because``.

The steps themselves live in ``components/``; each runs alone as ``mfh step NAME --date D``.
"""

from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pendulum
from airflow.sdk import (
    DAG,
    Asset,
    BaseOperatorLink,
    CronDataIntervalTimetable,
    Param,
    get_current_context,
    task,
)
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from components.config import MODEL_KINDS, Pipeline, Settings, load_pipeline, read_pipeline_files
from components.steps import BY_NAME

SETTINGS = Settings()

# Minutes after which a task is stopped and retried: generous, only to end what hangs.
TIMEOUT_MIN = {"train_treatment": 240, "train_baseline": 240, "diagnose": 720, "simulate": 120, "respond": 120}
POOLS = {"train_treatment": "gpu", "train_baseline": "gpu", "diagnose": "gpu", "materialize": "online_store"}

GATES_REASON = "let_gates_pass_because"


class ReportLink(BaseOperatorLink):
    """A button on the report task that opens the day's report, in the tab that the plugin adds to a run's page."""

    name = "A/B report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Address of the tab; Airflow stores it when the task ends.

        Args:
            operator: The task.
            ti_key: Names DAG and run.

        Returns:
            A path below Airflow's base URL.
        """
        base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{base}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id, safe='')}/plugin/ab-report"


def run(pipeline_name: str, name: str, shard: int | None = None) -> dict[str, Any]:
    """Run a step for the day of the current DAG run; errors that a person can mend are not retried."""
    from airflow.sdk.exceptions import AirflowFailException

    from components.context import Context
    from components.errors import (
        CheckpointError,
        ConfigError,
        SkewError,
        SourceError,
        TrainingError,
        ValidationFailedError,
        WindowError,
    )
    from components.steps import run_step_past_gates

    context = get_current_context()
    start = context["data_interval_start"]
    instance = context["ti"]
    params = dict(context["params"])
    because = str(params.pop(GATES_REASON, "") or "")
    pipeline = load_pipeline(SETTINGS.pipelines_dir / f"{pipeline_name}.yaml").override(params)
    if start is None:
        raise AirflowFailException("this run has no data interval: start it from the schedule or as a backfill")
    if (end := context["data_interval_end"]) is not None and end > pendulum.now("UTC"):
        raise AirflowFailException(f"the day ends at {end.isoformat()}, which is to come: its log is not whole yet")
    day = start.astimezone(pipeline.feed.zone).date()
    identity = {"run_id": instance.run_id, "try": instance.try_number, "map_index": instance.map_index}
    started_by = context["dag_run"].triggering_user_name or "somebody"
    try:
        (result,) = run_step_past_gates(
            Context(pipeline, settings_of_task(), run=identity),
            *(name, day, shard),
            because=because,
            who=f"{started_by}, who started {instance.run_id}",
        )
    except (
        CheckpointError,
        ConfigError,
        SkewError,
        SourceError,
        TrainingError,
        ValidationFailedError,
        WindowError,
    ) as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    return result.record()


def settings_of_task() -> Settings:
    """The machine's settings, with the lake's keys from the Airflow connection that they name, masked in every log."""
    from airflow.sdk import BaseHook
    from airflow.sdk.log import mask_secret

    found = SETTINGS
    if found.lake_connection:
        connection = BaseHook.get_connection(found.lake_connection)
        keys = {"lake_access_key": connection.login or "", "lake_secret_key": connection.password or ""}
        endpoint = connection.extra_dejson.get("endpoint_url", found.lake_endpoint)
        found = found.model_copy(update=keys | {"lake_endpoint": endpoint})
    for secret in found.secrets:
        mask_secret(secret)
    return found


def on_gpu() -> dict[str, Any]:
    """Where tasks that train run: a queue of their own for Celery, a pod template of their own for Kubernetes."""
    options: dict[str, Any] = {}
    if SETTINGS.gpu_queue:
        options["queue"] = SETTINGS.gpu_queue
    if SETTINGS.gpu_pod_template:
        options["executor_config"] = {"pod_template_file": SETTINGS.gpu_pod_template}
    return options


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
        # Null: Airflow's forms take a text for one that has to be filled.
        GATES_REASON: Param(
            None,
            type=["null", "string"],
            minLength=5,
            maxLength=500,
            description="Why failed gates of the day may pass, for the report to show; empty lets none pass",
        ),
    }


def report_deadline(pipeline: Pipeline) -> DeadlineAlert:
    """The alert when a run is not done so long after it was queued, which is when its day has ended."""
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=SETTINGS.report_due_min),
        # By name: Airflow imports it, so its module is light.
        callback=AsyncCallback("components.deadline.on_deadline", kwargs={"pipeline": pipeline.name}),
        name=f"report of {pipeline.name}",
    )


def runbook(step: str) -> str:
    """Where what to do about a failed task is written, as Markdown."""
    place = f"{SETTINGS.runbooks}#{step}"
    return f"[Runbook]({place})" if place.startswith("http") else f"Runbook: `{place}`"


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
        max_active_runs=SETTINGS.max_active_runs,
        params=params_of(pipeline),
        tags=["mfh", pipeline.feed.kind],
        doc_md=__doc__,
        deadline=report_deadline(pipeline),
        default_args={
            "owner": pipeline.owner,
            "retries": SETTINGS.retries,
            "retry_delay": timedelta(seconds=SETTINGS.retry_delay_s),
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
            "doc_md": f"{BY_NAME[name].meaning}\n\nBy hand: `mfh step {name} --pipeline {pipeline.name} --date DAY`\n\n"
            f"{runbook(name)}",
            **(on_gpu() if POOLS.get(name) == "gpu" else {}),
            **extra,
        }

        @task(**options)
        def work() -> dict[str, Any]:
            return run(pipeline.name, name)

        return work()

    @task(task_id="shards", doc_md=f"The shards of users.\n\n{runbook('simulate')}")
    def shards() -> list[int]:
        return list(range(get_current_context()["params"]["shards"]))

    @task(
        task_id="simulate",
        map_index_template="shard {{ task.op_kwargs['shard'] }}",
        execution_timeout=timedelta(minutes=TIMEOUT_MIN["simulate"]),
        doc_md=f"{BY_NAME['simulate'].meaning}\n\n{runbook('simulate')}",
    )
    def simulate(shard: int) -> dict[str, Any]:
        return run(pipeline.name, "simulate", shard)

    asset = f"mfh://{pipeline.name}"
    ingest, features = step("ingest"), step("features")
    validate_log, validate_features = step("validate_log"), step("validate_features")
    validate_training_set, validate_models = step("validate_training_set"), step("validate_models")
    materialize, check_skew, dataset = step("materialize"), step("check_skew"), step("dataset")
    treatment = step("train_treatment", outlets=[Asset(f"{asset}/model/treatment")])
    baseline = step("train_baseline", outlets=[Asset(f"{asset}/model/baseline")])
    evaluate, respond, replay, analyse = step("evaluate"), step("respond"), step("replay"), step("analyse")
    report = step("report", outlets=[Asset(f"{asset}/report")])
    report.operator.operator_extra_links = (ReportLink(),)
    promote = step("promote")
    rollouts = simulate.expand(shard=shards())

    ingest >> validate_log >> features >> validate_features >> [materialize, dataset]
    dataset >> validate_training_set >> [treatment, respond]
    treatment >> baseline >> evaluate >> validate_models
    # Replay compares with the response model too.
    [baseline, respond] >> rollouts
    [baseline, respond] >> replay
    if pipeline.tunes_fusion:
        [baseline, respond] >> step("tune") >> [rollouts, replay]
    [validate_models, rollouts, replay] >> analyse >> report
    baseline >> step("feature_report") >> report
    # A day whose online values are wrong promotes nothing; its report shows it.
    materialize >> check_skew >> promote
    report >> promote
    if pipeline.second_comparison:
        [rollouts, evaluate] >> step("champion") >> promote
    if pipeline.diagnostics:
        # Behind both arms, which the rest of the day waits for and which need the same pool.
        baseline >> step("diagnose") >> report


# Of a file that can not be read, mfh_pipeline_files.py shows the reason as an import error; the others go on.
for pipeline in read_pipeline_files(SETTINGS.pipelines_dir)[0]:
    globals()[f"mfh_daily_{pipeline.name}"] = build(pipeline)
