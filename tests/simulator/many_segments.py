"""A record of thousands of segments, tasks, days and refusals: what a page must survive."""

from simulator.experiment import Experiment
from tests.simulator.experiment_example import example, metric
from tests.simulator.hostile import HOSTILE
from tests.simulator.log_example import series

SEGMENTS = 3_000


def many_segments() -> Experiment:
    """The example with its first metric in 3,000 further segments, exploratory all of them, and much else."""
    record = example()
    more = tuple(
        metric(
            "app_time",
            "App time per user and day",
            "primary",
            f"country {at} {HOSTILE}",
            (300.0 + at, 301.0 + at),
            exploratory=True,
            users=17,
        )
        for at in range(SEGMENTS)
    )
    first = record.quality[0]
    tasks = tuple(first.model_copy(update={"task": f"task {at}"}) for at in range(1_000))
    days = tuple(record.data[0].model_copy(update={"day": f"day {at}"}) for at in range(500))
    points = tuple(
        series()[0].points[0].model_copy(update={"day": f"20{at // 336:02d}-{at // 28 % 12 + 1:02d}-{at % 28 + 1:02d}"})
        for at in range(1_000)
    )
    long = series()[0].model_copy(update={"points": points})
    return record.model_copy(
        update={
            "metrics": (*record.metrics, *more),
            "quality": (*record.quality, *tasks),
            "data": (*record.data, *days),
            "series": (long, *(long.model_copy(update={"segment": one.segment}) for one in more[:200])),
        }
    )
