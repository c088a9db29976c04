"""Rung V4 over several small worlds: a day's agreement of replay and rollouts, made often enough to judge the check."""

from dataclasses import asdict
from typing import Any

from components.agreement import agreement
from components.checks.rung import Found, Notify, State
from components.checks.worlds import DESIGN, Size, world_day
from components.steps import run_step

FIRST_SEED = DESIGN + 510
# First slots are few: in a small world no difference is powered.
SIZE = Size(users=6_000, new_users_per_day=200, videos=1_500, new_videos_per_day=100, window_days=4)
# A 95 % interval misses in one of twenty; more than this share of misses is not chance at a few worlds and eight cells.
MOST_MISSES = 0.15


def check_agreement(notify: Notify, worlds: int, size: Size = SIZE) -> Found:
    """Compare both estimators on the first slots of several worlds' held-out days.

    Args:
        notify: Called with (done, total, what).
        worlds: How many.
        size: Of each.

    Returns:
        The rung: passed when at most 15 % of the powered differences have an interval without 0.
    """
    rows: list[dict[str, Any]] = []
    for done in range(worlds):
        notify(done, worlds, "agreement")
        with world_day(FIRST_SEED + done, size) as day:
            for step in ("train_treatment", "train_baseline", "respond"):
                run_step(day.context, step, day.day)
            found = agreement(day.context, day.day)
            rows += [{"seed": FIRST_SEED + done, **cell.model_dump(mode="json")} for cell in found.cells]
    notify(worlds, worlds, "agreement")
    powered = [row for row in rows if row["state"] in ("passed", "failed")]
    misses = sum(row["state"] == "failed" for row in powered)
    state: State = "not powered"
    if powered:
        state = "passed" if misses <= MOST_MISSES * len(powered) else "failed"
    sentence = (
        f"Of {len(powered)} powered differences between replay and rollouts over {worlds} worlds, {misses} have an "
        f"interval without 0; {len(rows) - len(powered)} are not powered."
    )
    return Found("V4 agreement", state, sentence, {"first_seed": FIRST_SEED, "size": asdict(size)}, rows)
