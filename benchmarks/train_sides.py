"""What ``mfh bench train`` puts side by side: our trainer and step, the plain graph, torch-rechub.

Needs torch, numpy and pyarrow alone, but for torch-rechub's side, so that it runs on a bare GPU machine.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from benchmarks.plain_graph import PlainForest
from components.models import trainer
from components.models.fields import InputSpec, Vocabularies
from components.models.loading import load, survey
from components.models.mfh import FacetForest
from components.models.parallel import Team
from components.models.settings import ModelRecipe, SwitcherSettings, Task, TrainSettings
from components.models.updates import Setup, one_step

NUMBERS, HISTORY = 32, 20
SPEC = InputSpec(
    ids=("user_id", "video_id"),
    categories=("topic", "surface", "hour"),
    numeric=tuple(f"number_{i}" for i in range(NUMBERS)),
    history="last_videos",
    user_columns=("user_id", "last_videos", *(f"number_{i}" for i in range(NUMBERS // 2))),
    video_columns=("video_id", "topic", *(f"number_{i}" for i in range(NUMBERS // 2, NUMBERS))),
    context_columns=("surface", "hour"),
)
USERS, VIDEOS = 20_000, 10_000

# torch-rechub's PLE has one width in every layer and no level 0, so ours gets the same.
LIKE_RECHUB = SwitcherSettings("ple", (256, 256), experts=2, shared=2)


@cache
def window(rows: int, behaviours: int, groups: int) -> pa.Table:
    """Random rows: ids, categories, numbers, a history, groups and labels without a signal; speed does not need one.

    Args:
        rows: N.
        behaviours: m; tasks are called ``behaviour_0`` and so on.
        groups: k.

    Returns:
        The table.
    """
    rng = np.random.default_rng(0)
    offsets = pa.array(np.arange(0, rows * HISTORY + 1, HISTORY), pa.int32())
    columns: dict[str, Any] = {
        "user_id": rng.integers(0, USERS, rows),
        "video_id": rng.integers(0, VIDEOS, rows),
        "topic": rng.integers(0, 50, rows),
        "surface": rng.integers(0, 5, rows),
        "hour": rng.integers(0, 24, rows),
        "last_videos": pa.ListArray.from_arrays(offsets, pa.array(rng.integers(0, VIDEOS, rows * HISTORY))),
        "group": pa.array(rng.integers(0, groups, rows).astype(np.int8)),
    }
    columns |= {name: rng.normal(size=rows).astype(np.float32) for name in SPEC.numeric}
    columns |= {task.name: rng.integers(0, 2, rows).astype(np.int8) for task in tasks(behaviours)}
    return pa.table(columns)


def tasks(behaviours: int) -> tuple[Task, ...]:
    """As many binary tasks."""
    return tuple(Task(cast(Any, f"behaviour_{a}")) for a in range(behaviours))


def group_names(groups: int) -> tuple[str, ...]:
    """As many names."""
    return tuple(f"group_{g}" for g in range(groups))


def recipe(kind: str) -> ModelRecipe:
    """The paper's sizes for MFH; torch-rechub's for the models that it has."""
    if kind in ("ple", "mmoe"):
        return ModelRecipe(cast(Any, kind), level0_width=0, level1=LIKE_RECHUB)
    return ModelRecipe(cast(Any, kind))


@dataclass(frozen=True)
class Job:
    """An epoch from Arrow tables (torch-rechub: from its arrays) to moved weights.

    Attributes:
        side: ``ours``, ``rechub`` or ``rechub_without_batchnorm``.
        kind: ``ple`` or ``mmoe``.
        batch: Rows of a step.
        rows: Rows of the epoch.
        threads: Of torch.
    """

    side: str
    kind: str
    batch: int
    rows: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """Wall time of a job, and the largest memory of the process so far."""

    seconds: float
    peak_mib: float


def epoch(job: Job) -> Measured:
    """Train an epoch end to end, loader included.

    Args:
        job: What to train.

    Returns:
        Its time; ours includes encoding the table, torch-rechub's begins with encoded arrays.
    """
    torch.set_num_threads(job.threads)
    seconds = _our_epoch(job) if job.side == "ours" else _rechub_epoch(job)
    return Measured(seconds, _peak_mib())


def _peak_mib() -> float:
    """Largest resident memory of this process; getrusage's would be that of the process which started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _our_epoch(job: Job) -> float:
    table = window(job.rows, 3, 3)
    # torch-rechub has one width for all embeddings, so ours gets the same.
    settings = replace(
        TrainSettings(),
        epochs=1,
        batch_size=job.batch,
        min_id_count=1,
        field_embedding=16,
        device="cpu",
        threads=job.threads,
    )
    began = time.perf_counter()
    trainer.fit(recipe(job.kind), settings, tasks(3), group_names(3), SPEC, table)
    return time.perf_counter() - began


@cache
def _rechub_inputs(rows: int) -> tuple[list[Any], Any, Any]:
    from benchmarks import rechub

    table = window(rows, 3, 3)
    vocab = Vocabularies.fit(table, SPEC, 1)
    labels = np.stack([table[task.name].to_numpy().astype(np.float32) for task in tasks(3)], axis=1)
    return rechub.describe(SPEC, vocab, TrainSettings(), 3), rechub.arrays(table, SPEC, vocab), labels


def _rechub_epoch(job: Job) -> float:
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator

    from benchmarks import rechub

    described, arrays, labels = _rechub_inputs(job.rows)
    torch.manual_seed(0)
    model = rechub.build(job.kind, recipe(job.kind), tasks(3), described)
    if job.side == "rechub_without_batchnorm":
        _without_batchnorm(model)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        optimizer = {"lr": 1e-3, "weight_decay": 1e-5}
        theirs = MTLTrainer(model, ["classification"] * 3, optimizer_params=optimizer, n_epoch=1, device="cpu")
        few = {name: values[:2] for name, values in arrays.items()}
        generator = DataGenerator(arrays, labels)
        loaders = generator.generate_dataloader(few, labels[:2], few, labels[:2], batch_size=job.batch)
        theirs.train_one_epoch(loaders[0])
    return time.perf_counter() - began


def _without_batchnorm(model: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, nn.Identity())


@contextlib.contextmanager
def our_step(
    kind: str,
    batch: int,
    behaviours: int,
    groups: int,
    device: str,
    precision: str = "fp32",
    *,
    compiled: bool = False,
    tables: str = "dense",
    users: int = 0,
) -> Iterator[Callable[[], None]]:
    """A training step on rows that lie ready: encoder, network, loss, clipping, AdamW.

    Args:
        kind: A model of the zoo.
        batch: Rows.
        behaviours: m.
        groups: k.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        compiled: With ``torch.compile``.
        tables: Rule by which embedding tables move.
        users: Rows of the table of users; 0 for those of the batch.

    Yields:
        Makes one step and returns when it is done.
    """
    from components.models.compiled import compiled as compiling

    table = window(batch, behaviours, groups)
    settings = TrainSettings(
        epochs=1_000_000,
        batch_size=batch,
        min_id_count=1,
        device=cast(Any, device),
        precision=cast(Any, precision),
        table_optimizer=cast(Any, tables),
    )
    where = torch.device(device)
    rows, vocab = survey(table, SPEC, 1)
    if users:
        vocab = replace(vocab, values=(pa.array(np.arange(users)), *vocab.values[1:]))
    with load(table, rows, SPEC, vocab, tasks(behaviours), groups, 4_096, where) as data:
        setup = Setup(settings, tasks(behaviours), group_names(groups), data, None, Team(), where)
        state = trainer.build(setup, recipe(kind), SPEC, vocab)
        (words,) = data.shelf.in_order(batch)
        present = int((~torch.isnan(data.shelf.layout.unpack(words).labels)).sum())
        with compiling(state.model.network, compiled):

            def step() -> None:
                one_step(setup, state, words, present, False)
                synchronise(where)

            yield step


@contextlib.contextmanager
def plain_step(kind: str, batch: int, behaviours: int, groups: int, device: str) -> Iterator[Callable[[], None]]:
    """The same step with the full graph of one module per expert, over the whole batch, and torch's AdamW.

    Args:
        kind: A model that is a forest.
        batch: Rows.
        behaviours: m.
        groups: k.
        device: ``cpu`` or ``cuda``.

    Yields:
        Makes one step and returns when it is done.
    """
    table = window(batch, behaviours, groups)
    where = torch.device(device)
    settings = TrainSettings(batch_size=batch, min_id_count=1, device=cast(Any, device))
    rows, vocab = survey(table, SPEC, 1)
    with load(table, rows, SPEC, vocab, tasks(behaviours), groups, 4_096, where) as data:
        setup = Setup(settings, tasks(behaviours), group_names(groups), data, None, Team(), where)
        state = trainer.build(setup, recipe(kind), SPEC, vocab)
        forest = cast(FacetForest, state.model.network)
        graph = PlainForest(forest).to(where)
        parameters = [*graph.parameters(), *state.model.encoder.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-5, fused=True)
        rows_of = data.shelf.layout.unpack(next(data.shelf.in_order(batch)))
        number = torch.arange(batch, device=where)
        cell = rows_of.cell if forest.routes else torch.zeros_like(rows_of.cell)
        present = float((~torch.isnan(rows_of.labels)).sum())

        def step() -> None:
            optimizer.zero_grad()
            x = state.model.encoder(rows_of.index, rows_of.numeric, rows_of.history)
            logits: Tensor = graph(x, rows_of.cell)[number, cell]
            loss = state.loss.forward(logits, rows_of.labels, present, "the batch").total
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            synchronise(where)

        yield step


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(sides: dict[str, Callable[[], None]], repeats: int, warmup: int = 2) -> dict[str, list[float]]:
    """Time sides in turn, so that a change of the machine's speed meets all of them.

    Args:
        sides: Each does its work once.
        repeats: Counted rounds.
        warmup: Rounds before them.

    Returns:
        Seconds of every round of each side.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warmup + repeats):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            if number >= warmup:
                found[name].append(time.perf_counter() - began)
    return found


def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Median of the ratios round by round, and their smallest and largest."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
