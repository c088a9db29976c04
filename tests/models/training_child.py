"""A training in a process of its own, for tests that end it or that run two of them side by side.

``python -m tests.models.training_child PLAN.json``: see :func:`main` for what a plan holds.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from components.checkpoints import LakeCheckpoints
from components.errors import TrainingInterruptedError
from components.lake import Lake
from components.models import bundle
from components.models.trainer import fit
from tests.models import planted

# The last batch has one row, so that one of two processes has none of it.
ROWS = 2_001
# Everything that a resumed training could get wrong is switched on.
HARD = replace(
    planted.TRAIN,
    epochs=2,
    batch_size=250,
    dropout=0.1,
    embedding_dropout=0.1,
    averaging=0.9,
    loss_weights="uncertainty",
    patience=3,
    evaluations=2,
    checkpoint_steps=4,
)


def train(settings, rows=ROWS, **options):
    """A model of the planted window, stopped early by rows of another one."""
    valid = planted.window(500, seed=1)
    arguments = (planted.RECIPE, settings, planted.TASKS, planted.GROUPS, planted.SPEC)
    return fit(*arguments, planted.window(rows), valid, **options)


def store(folder):
    """Checkpoints below a folder."""
    return LakeCheckpoints(Lake(str(folder)), "model", "rows")


def main():
    """Do what a plan says.

    A plan holds ``folder``, ``trainings`` (a list of ``name``, ``settings`` and, optionally, ``end_at``: after which
    step the last process asks itself to end), ``wait_at`` (the step after which to wait for a line on standard input),
    and ``processes`` (where there are several) with ``rank``. Every training writes ``<name>-<rank>.json`` and its
    bundle.
    """
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder, rank, processes = Path(plan["folder"]), plan.get("rank", 0), plan.get("processes", 1)
    torch.set_num_threads(1)
    if processes > 1:
        method = f"file://{folder / 'meeting'}"
        distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=processes)
    for one in plan["trainings"]:
        losses, ended = {}, ""

        def tell(step, steps, loss, one=one, losses=losses):
            losses[step] = float(loss)
            if step == plan.get("wait_at"):
                print(f"step {step} of {steps}", flush=True)
                sys.stdin.readline()
            if step == one.get("end_at") and rank == processes - 1:
                os.kill(os.getpid(), signal.SIGTERM)

        kept = folder / one.get("checkpoints", one["name"])
        try:
            fitted = train(replace(HARD, **one["settings"]), checkpoints=store(kept), on_step=tell)
            for name, data in bundle.save(fitted, {}).items():
                (folder / f"{one['name']}-{rank}-{name}").write_bytes(data)
        except TrainingInterruptedError as error:
            ended = str(error)
        (folder / f"{one['name']}-{rank}.json").write_text(json.dumps({"losses": losses, "ended": ended}))
    if processes > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
