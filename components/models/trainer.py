"""Training: one recipe, one window, one seed, one set of weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.config import ModelRecipe, Task, TrainSettings
from components.errors import SourceError, TrainingError
from components.models.fields import InputSpec, Vocabularies, encode
from components.models.fitted import EpochLoss, Fitted, Ranker, group_codes
from components.models.losses import TaskLosses, masked_loss
from components.models.optimizer import AdamW

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True, eq=False)
class Window:
    """A table as tensors on the training device.

    Attributes:
        inputs: index int32 [N, F], numeric float32 [N, n], history int32 [N, L].
        group: int64 [N].
        labels: float32 [N, m], NaN = missing.
    """

    inputs: tuple[Tensor, Tensor, Tensor]
    group: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.group)


class LossSums:
    """Running sums of unweighted losses and of present labels, per group and task: float64 [k, m]."""

    def __init__(self, groups: int, tasks: int, device: torch.device) -> None:
        # Sums stay in float64 only where they are added up: the products below are of float32 batches.
        self.loss = torch.zeros(groups, tasks, dtype=torch.float64, device=device)
        self.entries = torch.zeros(groups, tasks, dtype=torch.float64, device=device)

    def add(self, batch: TaskLosses, group: Tensor) -> None:
        """Add a batch; group int64 [B]."""
        member = torch.nn.functional.one_hot(group, len(self.loss)).T.float()
        self.loss += member @ batch.entries
        self.entries += member @ batch.mask.float()


def fit(
    recipe: ModelRecipe,
    train: TrainSettings,
    tasks: tuple[Task, ...],
    group_names: tuple[str, ...],
    spec: InputSpec,
    table: pa.Table,
    valid: pa.Table | None = None,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train a model.

    The result is a function of the arguments and the number of threads (``torch.set_num_threads`` is the caller's);
    on a GPU sums of embedding gradients may differ in their last bits between runs.

    Args:
        recipe: The network.
        train: Optimiser and embedding settings.
        tasks: m behaviours, in the order of the outputs.
        group_names: k groups, least active first.
        spec: What the model reads.
        table: The window: spec's columns, ``group`` (0 to k - 1), one label column per task (null = not recorded).
        valid: Rows for the losses after each epoch, the same columns; they do not influence the weights.
        on_step: Called after every step with (step, steps, loss), step from 1.

    Returns:
        The model with its losses and warnings.

    Raises:
        TrainingError: When there is no row or no label at all, a label is out of range, or a loss is not finite.
        SourceError: When a column is missing or can not be read.
    """
    began = time.monotonic()
    device = _device(train)
    if table.num_rows == 0:
        raise TrainingError("the training window has no rows")
    if not any(task.weight > 0 for task in tasks):
        raise TrainingError("every task has weight 0, so nothing would train; give one task a weight above 0")
    vocab = Vocabularies.fit(table, spec, train.min_id_count)
    window = _load(table, spec, vocab, tasks, groups=len(group_names), device=device)
    held_out = None if valid is None else _load(valid, spec, vocab, tasks, groups=len(group_names), device=device)
    warnings = _check_labels(window, tasks, group_names)

    # Initial weights are drawn on the CPU, so that a seed means the same ones on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        model = Ranker(recipe, train, spec, vocab, behaviours=len(tasks), groups=len(group_names)).to(device)
    optimizer = _optimizer(model, train)
    shuffle = torch.Generator().manual_seed(train.seed)
    steps_per_epoch = -(-len(window) // train.batch_size)

    history: list[EpochLoss] = []
    for epoch in range(1, train.epochs + 1):
        model.train()
        sums = LossSums(len(group_names), len(tasks), device)
        order = torch.randperm(len(window), generator=shuffle).to(device)
        for number, rows in enumerate(torch.split(order, train.batch_size), start=1):
            losses = _forward(model, window, rows, tasks, f"epoch {epoch}, batch {number} of {steps_per_epoch}")
            optimizer.zero_grad()
            losses.total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
            optimizer.step()
            sums.add(losses, window.group[rows])
            if on_step is not None:
                step = (epoch - 1) * steps_per_epoch + number
                on_step(step, train.epochs * steps_per_epoch, losses.total.item())
        held = _evaluate(model, held_out, tasks, group_names, train.batch_size)
        history += _records(epoch, tasks, group_names, sums, held)
    model.eval()
    seconds = time.monotonic() - began
    return Fitted(recipe, train, tasks, group_names, spec, vocab, model, tuple(history), warnings, len(window), seconds)


def _device(train: TrainSettings) -> torch.device:
    if train.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if train.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("train.device is 'cuda' but no GPU is usable here; set it to 'auto' or 'cpu'")
    return torch.device(train.device)


def _optimizer(model: Ranker, train: TrainSettings) -> AdamW:
    # Decay would pull rows towards zero in every step in which their id is not seen: popularity in disguise.
    tables = list(model.encoder.parameters())
    dense = list(model.network.parameters())
    return AdamW([(dense, train.weight_decay), (tables, 0.0)], train.learning_rate)


def _load(
    table: pa.Table,
    spec: InputSpec,
    vocab: Vocabularies,
    tasks: tuple[Task, ...],
    *,
    groups: int,
    device: torch.device,
) -> Window:
    """Encode a whole table once; batches are then rows of these tensors."""
    group = torch.from_numpy(group_codes(table, groups).astype(np.int64))
    encoded = encode(table, spec, vocab)
    arrays = (encoded.index, encoded.numeric, encoded.history)
    index, numeric, history = (torch.from_numpy(array).to(device) for array in arrays)
    labels = torch.from_numpy(np.stack([_labels(table, task) for task in tasks], axis=1))
    return Window((index, numeric, history), group.to(device), labels.to(device))


def _labels(table: pa.Table, task: Task) -> NDArray[np.float32]:
    if task.name not in table.column_names:
        raise SourceError(f"label column {task.name!r} is missing; the table has {table.column_names}")
    column = table[task.name].cast(pa.float32()).combine_chunks()
    labels: NDArray[np.float32] = column.to_numpy(zero_copy_only=False)
    present = labels[~np.isnan(labels)]
    top = 1.0 if task.loss == "bce" else np.inf
    wrong = int(((present < 0) | (present > top) | np.isinf(present)).sum())
    if wrong:
        allowed = "0 to 1" if task.loss == "bce" else "finite and at least 0"
        raise TrainingError(f"{wrong} of {len(present)} labels of task {task.name!r} are out of range: {allowed}")
    return labels


def _check_labels(window: Window, tasks: tuple[Task, ...], group_names: tuple[str, ...]) -> tuple[str, ...]:
    present = (~torch.isnan(window.labels)).sum(0).tolist()
    positive = (window.labels > 0).sum(0).tolist()
    if not any(present):
        names = [task.name for task in tasks]
        raise TrainingError(f"none of the {len(window)} rows of the training window has a label for any of {names}")
    warnings = []
    for task, labelled, positives in zip(tasks, present, positive, strict=True):
        if labelled == 0:
            warnings.append(f"task {task.name!r} has no label in the training window: its head is untrained")
        elif positives == 0:
            warnings.append(f"task {task.name!r} has no positive among {labelled} labels of the training window")
    counts = torch.bincount(window.group, minlength=len(group_names)).tolist()
    for name, count in zip(group_names, counts, strict=True):
        if count == 0:
            warnings.append(f"group {name!r} has no row in the training window: heads of its own are untrained")
    return tuple(warnings)


def _forward(model: Ranker, window: Window, rows: Tensor, tasks: tuple[Task, ...], batch: str) -> TaskLosses:
    index, numeric, history = (part[rows] for part in window.inputs)
    logits = model.forward(index, numeric, history, window.group[rows])
    return masked_loss(logits, window.labels[rows], tasks, batch)


def _evaluate(
    model: Ranker, window: Window | None, tasks: tuple[Task, ...], group_names: tuple[str, ...], batch_size: int
) -> LossSums:
    device = next(model.parameters()).device
    sums = LossSums(len(group_names), len(tasks), device)
    if window is None:
        return sums
    model.eval()
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(window), device=device), batch_size):
            sums.add(_forward(model, window, rows, tasks, "the validation rows"), window.group[rows])
    return sums


def _records(
    epoch: int, tasks: tuple[Task, ...], group_names: tuple[str, ...], train: LossSums, valid: LossSums
) -> list[EpochLoss]:
    """One record per task over all rows, then one per task and group."""
    sums = [torch.cat([part.sum(0, keepdim=True), part]) for s in (train, valid) for part in (s.loss, s.entries)]
    train_loss, train_entries, valid_loss, valid_entries = (part.tolist() for part in sums)
    records = []
    for g, group in enumerate((None, *group_names)):
        for t, task in enumerate(tasks):
            entries, held = int(train_entries[g][t]), int(valid_entries[g][t])
            records.append(
                EpochLoss(
                    epoch,
                    task.name,
                    group,
                    train_loss[g][t] / entries if entries else None,
                    entries,
                    valid_loss[g][t] / held if held else None,
                    held,
                )
            )
    return records
