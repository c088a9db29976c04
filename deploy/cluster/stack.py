"""The components of a cluster on one machine: those of the embedded stack, and a Celery worker for each queue."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from deploy.cluster.environment import DEFAULT_QUEUE, GPU_QUEUE, Servers, cluster_settings
from deploy.local.stack import COMPONENTS, Stack


def worker(home: Path, name: str, queue: str, concurrency: int) -> tuple[str, ...]:
    """Arguments of ``airflow`` for a worker.

    Several on one machine each need a process id file and a name of their own.

    Args:
        home: Folder of this machine.
        name: Name of the worker, unique on this machine.
        queue: Which tasks it takes.
        concurrency: How many at once.

    Returns:
        The arguments.
    """
    pid_file = home / "airflow" / f"{name}.pid"
    # Logs lie in the folder that the API server reads, so no worker has to serve its own.
    options = ("--queues", queue, "--concurrency", str(concurrency), "--pid", str(pid_file), "--skip-serve-logs")
    return ("celery", "worker", *options, "--celery-hostname", f"{name}@%h")


class ClusterStack(Stack):
    """A cluster's components, started, watched, restarted and stopped together.

    Args:
        home: Folder of this machine (MFH_HOME).
        port: Where the UI listens on 127.0.0.1.
        servers: Database, broker and object store; the databases must exist.
        dags: Folder of DAG files, None for the checkout's.
        extra: Variables that replace the defaults.
        notify: Told what is going on, one sentence at a time.
        concurrency: Tasks at once of the worker on the default queue; the one of the GPU takes one.
        restarts: As for ``Stack``; by default a component is always started again.
    """

    forks_tasks: ClassVar[frozenset[str]] = frozenset({"worker-default", "worker-gpu"})

    def __init__(
        self,
        home: Path,
        port: int,
        servers: Servers,
        dags: Path | None = None,
        extra: dict[str, str] | None = None,
        notify: Callable[[str], None] = lambda what: None,
        concurrency: int | None = None,
        restarts: int | None = None,
    ) -> None:
        resolved = home.expanduser().resolve()
        workers = {
            "worker-default": worker(resolved, "worker-default", DEFAULT_QUEUE, concurrency or os.cpu_count() or 2),
            "worker-gpu": worker(resolved, "worker-gpu", GPU_QUEUE, 1),
        }
        super().__init__(resolved, port, dags, extra, notify, COMPONENTS | workers, restarts)
        self.servers = servers

    def environment(self) -> dict[str, str]:
        """Airflow's settings as environment variables; the home's secrets are made on first use."""
        return cluster_settings(self.home, self.port, self.dags, self.servers, self._extra)
