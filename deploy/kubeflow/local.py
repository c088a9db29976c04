"""Run the Kubeflow pipeline of one day on this machine, by Kubeflow's local runner: no cluster, no container.

Run as ``.venv-kfp/bin/python -m deploy.kubeflow.local --mfh .venv/bin/mfh --day DAY --pipeline NAME``. The runner takes
Python components only, so each task is one whose single line calls ``mfh`` with the arguments of the container.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import dsl, local

from deploy.kubeflow.pipeline import Options, Task, build


def subprocess_component(mfh: Path) -> Callable[[Task, Options], Callable[..., Any]]:
    """A factory of components for the local runner.

    Args:
        mfh: The command line of the environment that runs the steps.

    Returns:
        What ``build`` takes.
    """

    def factory(task: Task, options: Options) -> Callable[..., Any]:
        command = [str(mfh), *task.arguments(options.params)]

        def component(day: str, pipeline: str, command: list) -> None:  # type: ignore[type-arg]
            import subprocess

            subprocess.run([*command, "--date", day, "--pipeline", pipeline], check=True)

        # The runner finds the function by its name in the source, so all have one name. The image is never pulled.
        made = dsl.component(component, base_image="python:3.11", install_kfp_package=False)
        return lambda day, pipeline: made(day=day, pipeline=pipeline, command=command)

    return factory


def main(arguments: list[str] | None = None) -> int:
    """Run one day.

    Args:
        arguments: Command line, None for the process's.

    Returns:
        Exit status: 0, or 1 when a task failed.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.kubeflow.local", description=__doc__.partition("\n")[0])
    parser.add_argument("--mfh", type=Path, required=True, help="the command line that runs a step")
    parser.add_argument("--day", required=True, help="interval day, YYYY-MM-DD")
    parser.add_argument("--pipeline", required=True, help="name of a pipeline, or a YAML file")
    parser.add_argument("--shards", type=int, default=2, help="simulator.shards of the pipeline file (2)")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter of every run")
    given = parser.parse_args(arguments)
    options = Options("unused", shards=given.shards, params=tuple(given.param))
    with tempfile.TemporaryDirectory() as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=True)
        try:
            build(options, subprocess_component(given.mfh.absolute()))(day=given.day, pipeline=given.pipeline)
        except RuntimeError as error:
            # Of the runner: a task failed, and nothing that waits for it has started. Its log stands above.
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
