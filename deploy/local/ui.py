"""``make ui``: Airflow with its UI, in the foreground until Ctrl-C. Run as ``python -m deploy.local.ui``."""

import argparse
import sys
import time
from pathlib import Path

from components.config import Settings
from components.errors import MfhError
from deploy.local.foreground import end_on_term
from deploy.local.stack import EMBEDDED_RESTARTS, Stack


def main(arguments: list[str] | None = None) -> int:
    """Start Airflow and stay until interrupted, or stop one that runs.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status: 0 when it was ended on purpose, 1 when it could not start or a component ended.
    """
    parser = argparse.ArgumentParser(prog="make ui", description=__doc__.partition(":")[2].strip())
    parser.add_argument("--port", type=int, default=8080, help="port of the UI (8080)")
    parser.add_argument("--home", type=Path, metavar="DIR", help="folder of lake, models and Airflow (MFH_HOME)")
    parser.add_argument("--stop", action="store_true", help="end the Airflow that runs on this home")
    options = parser.parse_args(arguments)
    home = (Settings(home=options.home) if options.home else Settings()).home
    stack = Stack(home, options.port, notify=lambda what: print(what, flush=True), restarts=EMBEDDED_RESTARTS)
    if options.stop:
        running = stack.running_port()
        stack.stop()
        print("no Airflow was running" if running is None else f"stopped the Airflow at port {running}")
        return 0
    end_on_term()
    try:
        return _serve(stack)
    except MfhError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _serve(stack: Stack) -> int:
    try:
        stack.start()
        print(f"user admin, password in {stack.password_file}; Ctrl-C ends it", flush=True)
        while not stack.is_stopped:
            stack.check()
            time.sleep(1)
        print("Airflow was stopped by another program")
    except KeyboardInterrupt:
        print("stopping Airflow", flush=True)
    finally:
        stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
