"""What computes: how many CPU threads torch may use, and the processes that train together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from components.config import Pipeline

if TYPE_CHECKING:
    from components.models.parallel import Team


def use_threads(pipeline: Pipeline) -> None:
    """Set torch's threads to the pipeline's, so that a day gives the same bits on every machine and executor.

    One is the default: tasks of a day, and days of a backfill, run side by side, and two tasks with two
    threads each on two cores take far longer than one after the other.
    """
    import torch

    torch.set_num_threads(pipeline.train.threads)


@contextmanager
def joined(pipeline: Pipeline) -> Iterator["Team"]:
    """Join the other processes of a start by ``torchrun``; without one, this process is alone.

    ``torchrun`` tells every process its number and where the first one listens through the environment; processes talk
    through NCCL where they train on GPUs, each on its own, and through Gloo otherwise.

    Args:
        pipeline: ``train.device``.

    Yields:
        The processes; only the first one writes.
    """
    from components.models.parallel import Team, team

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team()
        return
    import torch
    from torch import distributed

    on_gpu = pipeline.train.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield team()
    finally:
        distributed.destroy_process_group()
