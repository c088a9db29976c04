"""``make run``: the last days of a feed through Airflow, and what came out of them.

Run as ``python -m deploy.local.run``. Writes the pipeline file, starts Airflow on the embedded defaults, creates
a backfill by the call that the UI makes, follows it, and prints each day's verdict and report.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

from components.config import Pipeline, Settings, load_pipeline
from components.context import Context
from components.errors import ConfigError, MfhError
from components.store import open_store
from deploy.local.client import AirflowClient, Backfill, DagRun
from deploy.local.foreground import INTERRUPTED, end_on_term
from deploy.local.progress import ProgressDisplay
from deploy.local.stack import EMBEDDED_RESTARTS, Stack

DEFAULT_PORT = 8080
FAILED_TASK = frozenset({"failed", "upstream_failed"})


def main(arguments: list[str] | None = None) -> int:
    """Run the last days of a feed and print the reports.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status: 0 when every day succeeded, 1 otherwise, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    end_on_term()
    try:
        return _run(options)
    except MfhError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; a second run goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", metavar="FOLDER", help="a KuaiRand edition; without it the built-in world")
    parser.add_argument("--pipeline", type=Path, metavar="FILE", help="a pipeline file of your own")
    parser.add_argument("--days", type=int, default=3, metavar="N", help="how many days, counted from the last (3)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port of the UI ({DEFAULT_PORT})")
    parser.add_argument("--home", type=Path, metavar="DIR", help="folder of lake, models and Airflow (MFH_HOME)")
    parser.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=False, help="leave Airflow running at the end"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.days < 1:
        raise ConfigError(f"--days {options.days}: at least one day is needed")
    settings = Settings(home=options.home) if options.home else Settings()
    pipeline = load_pipeline(_pipeline_file(settings, options))
    first, last = backfill_days(pipeline, options.days)
    print(f"pipeline {pipeline.name}: {first} to {last}", flush=True)
    # Set-up registers with Feast, so that the days only read the registry.
    open_store(Context(pipeline, settings))

    with _airflow(settings.home, options.port, keep=options.keep) as stack, stack.client() as client:
        dag_id = f"mfh_daily_{pipeline.name}"
        client.wait_for_dag(dag_id)
        client.unpause(dag_id)
        zone = pipeline.feed.zone
        # Two days at a time keep two cores busy; what both need is made by one of them while the other waits.
        # A second 'make run' takes up the days that failed.
        backfill = client.create_backfill(dag_id, first, last, zone, max_active_runs=2, reprocess_behavior="failed")
        runs = _follow(stack, client, backfill, pipeline)
        failed = [run for run in runs.values() if run.state == "failed"]
        for run in failed:
            _print_failure(client, run, pipeline)
        _print_results(Context(pipeline, settings), runs)
        _print_ui(stack, kept=options.keep)
    return 1 if failed else 0


def backfill_days(pipeline: Pipeline, days: int, now: datetime | None = None) -> tuple[date, date]:
    """The last days that a feed can serve.

    Args:
        pipeline: Its feed may have a last day; one that grows ends yesterday, in its own zone.
        days: How many.
        now: The moment to count from when the feed grows, None for this one.

    Returns:
        First and last day, both included; fewer days when the feed is shorter.

    Raises:
        ConfigError: When the feed has not begun yet.
    """
    feed = pipeline.feed
    yesterday = (now or datetime.now(feed.zone)).astimezone(feed.zone).date() - timedelta(days=1)
    last = min(feed.last_day or yesterday, yesterday)
    if last < feed.first_day:
        raise ConfigError(f"the feed of {pipeline.name!r} begins on {feed.first_day}: no day of it has ended yet")
    return max(last - timedelta(days=days - 1), feed.first_day), last


def _pipeline_file(settings: Settings, options: argparse.Namespace) -> Path:
    if options.pipeline is None:
        # Reads the data's days, which needs pyarrow: not before the options are known to be right.
        from components.init import write_pipeline

        return write_pipeline(settings, options.data)
    if options.data is not None:
        raise ConfigError("--data and --pipeline exclude each other: a pipeline file names its data itself")
    pipeline = load_pipeline(options.pipeline)
    # The DAG file looks in one folder only.
    target = settings.pipelines_dir / f"{pipeline.name}.yaml"
    if target.resolve() != options.pipeline.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.pipeline, target)
    return target


@contextmanager
def _airflow(home: Path, port: int, keep: bool) -> Iterator[Stack]:
    """A running stack: the one that runs already on this home, which is then left running, or a new one."""
    stack = Stack(home, port, notify=lambda what: print(what, flush=True), restarts=EMBEDDED_RESTARTS)
    if (running := stack.running_port()) is not None:
        stack = Stack(home, running)
        print(f"using the Airflow that already runs at {stack.url}", flush=True)
        yield stack
        return
    stack.start()
    done = False
    try:
        yield stack
        done = True
    finally:
        if not (keep and done):
            stack.stop()


def _follow(stack: Stack, client: AirflowClient, backfill: Backfill, pipeline: Pipeline) -> dict[date, DagRun]:
    with ProgressDisplay() as display:
        return client.wait_backfill(
            backfill, pipeline.feed.zone, notify=display.show, check=stack.check, timeout_s=24 * 3_600
        )


def _print_failure(client: AirflowClient, run: DagRun, pipeline: Pipeline) -> None:
    tasks = client.task_instances(run.dag_id, run.run_id)
    # What failed by itself says why; what failed only because of it does not.
    failed = [task for task in tasks if task.state == "failed"] or [t for t in tasks if t.state in FAILED_TASK]
    for task in failed:
        print(f"\n{run.day(pipeline.feed.zone)}: task {task.label!r} failed in try {task.try_number}. End of its log:")
        print("\n".join("  " + line for line in client.task_log(task).splitlines()))
    if not failed:
        print(f"\n{run.day(pipeline.feed.zone)}: the run failed, but none of its tasks did (it may have timed out)")


def _print_results(context: Context, runs: dict[date, DagRun]) -> None:
    from components.report import find_report, read_experiment

    print()
    for day, run in sorted(runs.items()):
        if run.state != "success":
            print(f"{day}  failed")
            continue
        print(f"{day}  {read_experiment(context, day).verdict.sentence}\n            {find_report(context, day)}")


def _print_ui(stack: Stack, kept: bool) -> None:
    print(f"\nUI: {stack.url} (user admin, password in {stack.password_file})")
    if kept:
        print("Airflow is left running; 'make stop' ends it")
    elif stack.owns:
        print("Airflow stops now; 'make ui' starts it again")


if __name__ == "__main__":
    sys.exit(main())
