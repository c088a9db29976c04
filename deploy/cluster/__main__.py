"""``python -m deploy.cluster``: the components of a cluster on this machine, in the foreground until Ctrl-C.

The servers come from the environment: MFH_POSTGRES (postgresql://user:password@host:port), MFH_REDIS
(redis://:password@host:port/0) and the lake's variables (MFH_LAKE, MFH_LAKE_ENDPOINT, …).
"""

import argparse
import os
import shlex
import sys
import time

from components.config import Settings
from components.errors import ConfigError, MfhError
from deploy.cluster.environment import DATABASES, Servers
from deploy.cluster.stack import ClusterStack
from deploy.local.foreground import end_on_term


def servers_of(environment: dict[str, str], settings: Settings) -> Servers:
    """The servers that the environment names.

    Args:
        environment: Variables of this process.
        settings: Tells the lake.

    Returns:
        The servers.

    Raises:
        ConfigError: When one is not named.
    """
    for name in ("MFH_POSTGRES", "MFH_REDIS", "MFH_LAKE"):
        if not environment.get(name):
            raise ConfigError(f"{name} is not set; 'python -m deploy.cluster --help' says what a cluster needs")
    return Servers(
        postgres=environment["MFH_POSTGRES"],
        redis=environment["MFH_REDIS"],
        lake=settings.lake,
        lake_endpoint=settings.lake_endpoint,
        lake_access_key=settings.lake_access_key,
        lake_secret_key=settings.lake_secret_key,
        online=settings.online_store,
    )


def ensure_databases(servers: Servers) -> list[str]:
    """Make the databases that are missing.

    Args:
        servers: PostgreSQL; its user must have the right to.

    Returns:
        Names of the databases that were made.
    """
    import psycopg

    made = []
    with psycopg.connect(servers.database("postgres"), autocommit=True) as connection:
        known = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
        for name in DATABASES:
            if name not in known:
                connection.execute(f'CREATE DATABASE "{name}"')
                made.append(name)
    return made


def advertised(host: str, port: int) -> dict[str, str]:
    """Settings of an API server that workers on other machines reach.

    Args:
        host: Name of this machine, as the others know it.
        port: Where the API server listens.

    Returns:
        Variables that replace the defaults.
    """
    return {
        "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104 - asked for by name; the default is the loopback interface
        "AIRFLOW__API__BASE_URL": f"http://{host}:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{host}:{port}/execution/",
    }


def main(arguments: list[str] | None = None) -> int:
    """Start the components and stay until interrupted; what ends is started again.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status: 0 when it was ended on purpose, 1 when it could not start.
    """
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=summary, epilog=rest)
    parser.add_argument("--port", type=int, default=8080, help="port of the UI on 127.0.0.1 (8080)")
    parser.add_argument(
        "--advertise",
        metavar="HOST",
        help="listen on all interfaces, and tell workers on other machines this name (else only 127.0.0.1)",
    )
    parser.add_argument(
        "--print-environment",
        action="store_true",
        help="print the variables that a worker on another machine needs, secrets included, and start nothing",
    )
    parser.add_argument("--concurrency", type=int, help="tasks at once of the worker without GPU (the machine's cores)")
    options = parser.parse_args(arguments)
    settings = Settings()

    def say(what: str) -> None:
        print(what, flush=True)

    try:
        servers = servers_of(dict(os.environ), settings)
        extra = advertised(options.advertise, options.port) if options.advertise else {}
        stack = ClusterStack(
            settings.home, options.port, servers, extra=extra, notify=say, concurrency=options.concurrency
        )
        if options.print_environment:
            for name, value in sorted(stack.environment().items()):
                print(f"{name}={shlex.quote(value)}")
            return 0
        for name in ensure_databases(servers):
            say(f"made the database {name}")
        end_on_term()
        with stack:
            say(f"user admin, password in {stack.password_file}; Ctrl-C ends it")
            while not stack.is_stopped:
                stack.check()
                time.sleep(1)
        say("stopped by another program")
        return 0
    except KeyboardInterrupt:
        say("stopped")
        return 0
    except MfhError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
