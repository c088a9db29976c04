"""Settings of the stack on servers: what differs from the embedded defaults, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.errors import ConfigError
from deploy.local.environment import airflow_settings

GPU_QUEUE = "gpu"
DEFAULT_QUEUE = "default"
# Of the embedded defaults, these are for SQLite alone.
SQLITE_ONLY = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC")


@dataclass(frozen=True)
class Servers:
    """The servers that a cluster runs on.

    Attributes:
        postgres: ``postgresql://USER[:PASSWORD]@HOST[:PORT]``, without a database: there is one for each purpose.
        redis: ``redis://[:PASSWORD@]HOST[:PORT]/NUMBER``, the broker of Celery.
        lake: ``s3://bucket/prefix`` or a folder that all machines share.
        lake_endpoint: URL of an S3-compatible store, empty for AWS.
        lake_access_key: Its key.
        lake_secret_key: Its secret.
        online: The online store that all machines share (``MFH_ONLINE_STORE``), empty for the database of Redis behind
            the broker's.
    """

    postgres: str
    redis: str
    lake: str
    lake_endpoint: str = ""
    lake_access_key: str = ""
    lake_secret_key: str = ""
    online: str = ""

    def __post_init__(self) -> None:
        """Refuse URLs that would only fail minutes later, inside a component.

        Raises:
            ConfigError: When a URL is of another kind, or names a database.
        """
        for name, url, scheme in (("postgres", self.postgres, "postgresql"), ("redis", self.redis, "redis")):
            if urlsplit(url).scheme != scheme:
                raise ConfigError(f"{name} is a URL of the form {scheme}://…, not {url.partition('://')[0]!r}")
        if not (urlsplit(self.redis).path.strip("/") or "0").isdecimal():
            raise ConfigError("redis names a database by its number, such as redis://HOST:6379/0")
        if urlsplit(self.postgres).path.strip("/"):
            raise ConfigError("postgres names a server, not a database: airflow, mlflow and feast have one each")

    def database(self, name: str, driver: str = "") -> str:
        """URL of one database, for SQLAlchemy.

        Args:
            name: The database.
            driver: Driver to name, such as ``psycopg2``; empty for the scheme alone.

        Returns:
            The URL.
        """
        server = self.postgres.rstrip("/").removeprefix("postgresql")
        return f"postgresql{'+' + driver if driver else ''}{server}/{name}"

    @property
    def online_store(self) -> str:
        """URL of the online store: no file, which the next task's machine would not see."""
        broker = urlsplit(self.redis)
        return self.online or broker._replace(path=f"/{int(broker.path.strip('/') or 0) + 1}").geturl()


DATABASES = ("airflow", "mlflow", "feast")


def cluster_settings(
    home: Path, port: int, dags: Path, servers: Servers, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Every variable that the components, workers and tasks of a cluster need, the same for each of them.

    Args:
        home: Folder of this machine (MFH_HOME): logs, secrets, pipeline files; no data.
        port: Where the API server listens.
        dags: Folder of the DAG files.
        servers: Database, broker and object store.
        extra: Variables that replace what is said here.

    Returns:
        Variable name to value.
    """
    defaults = airflow_settings(home, port, dags)
    for name in SQLITE_ONLY:
        del defaults[name]
    return (
        defaults
        | {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": servers.database("airflow", "psycopg2"),
            # A connection that a restarted server has dropped is replaced instead of failing a task's heartbeat.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_PRE_PING": "True",
            "AIRFLOW__CELERY__BROKER_URL": servers.redis,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{servers.database('airflow', 'psycopg2')}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            # One task at a time is fetched: what waits stays in Redis, where another worker finds it.
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": DEFAULT_QUEUE,
            "MFH_GPU_QUEUE": GPU_QUEUE,
            "MFH_LAKE": servers.lake,
            "MFH_LAKE_ENDPOINT": servers.lake_endpoint,
            "MFH_LAKE_ACCESS_KEY": servers.lake_access_key,
            "MFH_LAKE_SECRET_KEY": servers.lake_secret_key,
            "MFH_MLFLOW_URI": servers.database("mlflow", "psycopg2"),
            "MFH_FEAST_REGISTRY": servers.database("feast", "psycopg"),
            "MFH_ONLINE_STORE": servers.online_store,
        }
        | dict(extra or {})
    )
