"""A program of the tests of the DAG, not a module: argument 1 is a JSON file of what to do,
argument 2 where to write what it saw.
"""

import json
import pathlib
import sys
from datetime import datetime

from airflow.utils.db import initdb

initdb()

from airflow.dag_processing.dagbag import DagBag  # noqa: E402 - the database comes first
from airflow.exceptions import ParamValidationError  # noqa: E402 - the database comes first
from airflow.utils.session import create_session  # noqa: E402 - the database comes first


def facts_of(dag):
    return {
        "timetable": type(dag.timetable).__name__,
        "expression": dag.timetable.expression,
        "zone": dag.timetable.timezone.name,
        "start": dag.start_date.isoformat(),
        "end": dag.end_date and dag.end_date.isoformat(),
        "catchup": dag.catchup,
        "deadline": [
            [type(one.reference).__name__, one.interval.total_seconds(), one.callback.path, one.callback.kwargs]
            for one in (dag.deadline or [])
        ],
        "tags": sorted(dag.tags),
        "owner": dag.owner,
        "doc_md": dag.doc_md,
        "description": dag.description,
        "params": {name: {"default": dag.params[name], **dag.params.get_param(name).schema} for name in dag.params},
        "tasks": {
            task.task_id: {
                "pool": task.pool,
                "owner": task.owner,
                "retries": task.retries,
                "delay_s": task.retry_delay.total_seconds(),
                "backoff": bool(task.retry_exponential_backoff),
                "timeout_s": task.execution_timeout and task.execution_timeout.total_seconds(),
                "doc_md": task.doc_md,
                "outlets": [outlet.uri for outlet in task.outlets],
                "upstream": sorted(task.upstream_task_ids),
                "mapped": task.is_mapped,
            }
            for task in dag.tasks
        },
    }


def run(dag, moment, conf=None):
    # dag.test() of Airflow 3.3 takes the serialized deadline for a key; tests/e2e/test_deadline.py runs it for real.
    dag.deadline = None
    done = dag.test(logical_date=datetime.fromisoformat(moment), run_conf=conf)
    with create_session() as session:
        instances = done.get_task_instances(session=session)
        return {
            "state": str(done.state),
            "interval": [done.data_interval_start.isoformat(), done.data_interval_end.isoformat()],
            "tasks": sorted([i.task_id, i.map_index, str(i.state), i.try_number] for i in instances),
            "returned": {
                i.task_id: i.xcom_pull(task_ids=i.task_id, session=session) for i in instances if i.map_index < 0
            },
        }


def refusal(dag, moment, conf):
    try:
        dag.test(logical_date=datetime.fromisoformat(moment), run_conf=conf)
    except ParamValidationError as error:
        return str(error)
    return None


wanted = json.loads(pathlib.Path(sys.argv[1]).read_text())
bag = DagBag()
seen = {"import_errors": bag.import_errors, "dags": {name: facts_of(dag) for name, dag in bag.dags.items()}}
dag = bag.dags["mfh_daily_fixture"]
seen["refusals"] = [refusal(dag, wanted["moment"], conf) for conf in wanted["malformed"]]
seen["day"] = run(dag, wanted["moment"])
seen["first_day"] = run(dag, wanted["first_moment"])
pathlib.Path(sys.argv[2]).write_text(json.dumps(seen, default=str))
