"""The benchmark of the data gates: what they cost (``validation_speed``)."""

from benchmarks.claims import Record, record
from benchmarks.validation_speed import Notify, speed


def run(rows: int, large: int, repeats: int, notify: Notify) -> Record:
    """Measure.

    Args:
        rows: Of the day that both sides judge.
        large: Of a day that ours judges once, 0 for none.
        repeats: Repetitions; medians are reported.
        notify: Called while it works.

    Returns:
        Claims, and a row per measurement.
    """
    claims, measured = speed(rows, large, repeats, notify)
    return record({"rows": rows, "large": large, "repeats": repeats}, claims, measured)
