"""How many CPU threads torch may use: a setting, because the same sums in other blocks round differently."""

from components.config import Pipeline


def use_threads(pipeline: Pipeline) -> None:
    """Set torch's threads to the pipeline's, so that a day gives the same bits on every machine and executor.

    One is the default: tasks of a day, and days of a backfill, run side by side, and two tasks with two
    threads each on two cores take far longer than one after the other.
    """
    import torch

    torch.set_num_threads(pipeline.train.threads)
