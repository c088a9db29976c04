"""From tables to a shelf of encoded rows, with what the labels of a window add up to."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from components.errors import SourceError, TrainingError
from components.models.batches import Batch, Layout, Shelf, make_shelf
from components.models.fields import InputSpec, Vocabularies, encode
from components.models.fitted import group_codes
from components.models.settings import Task

# Rows that are encoded at a time: what a pass over a window needs beside the shelf does not grow with the window.
SLICE_ROWS = 131_072


class Parts(Protocol):
    """A window in parts, such as days or row groups; every pass over it yields the same tables."""

    def __iter__(self) -> Iterator[pa.Table]:
        """The tables in order."""


Window: TypeAlias = pa.Table | Parts


def slices(window: Window) -> Iterator[pa.Table]:
    """A window's rows in order, ``SLICE_ROWS`` at a time at most."""
    for table in [window] if isinstance(window, pa.Table) else window:
        for start in range(0, table.num_rows, SLICE_ROWS):
            yield table.slice(start, SLICE_ROWS)


@dataclass
class Tally:
    """What the labels of a window add up to.

    Attributes:
        groups: int64 [k], rows of each group.
        present: int64 [m], labels that are not missing.
        positive: int64 [m], labels above 0.
        sums: float64 [m], of the labels.
        squares: float64 [m], of the labels' squares.
    """

    groups: NDArray[np.int64]
    present: NDArray[np.int64]
    positive: NDArray[np.int64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, groups: int, tasks: int) -> "Tally":
        """Nothing yet, of k groups and m tasks."""
        members, present, positive = (np.zeros(size, np.int64) for size in (groups, tasks, tasks))
        return cls(members, present, positive, np.zeros(tasks), np.zeros(tasks))

    @property
    def rows(self) -> int:
        """N."""
        return int(self.groups.sum())

    def add(self, group: NDArray[np.int8], labels: NDArray[np.float32]) -> None:
        """Add rows: group int8 [B], labels float32 [B, m], NaN = missing."""
        self.groups += np.bincount(group, minlength=len(self.groups))
        given = ~np.isnan(labels)
        values = np.where(given, labels, 0.0).astype(np.float64)
        self.present += given.sum(0)
        self.positive += (values > 0).sum(0)
        self.sums += values.sum(0)
        self.squares += (values * values).sum(0)

    def constant_losses(self, tasks: Sequence[Task]) -> list[float | None]:
        """Mean loss of the best constant prediction of every task; None where it is 0 or no label is present.

        The best constant is the mean label p: cross-entropy then is ``-p log p - (1-p) log(1-p)``, squared error the
        variance.

        Args:
            tasks: m tasks.

        Returns:
            One loss per task.
        """
        found: list[float | None] = []
        for at, task in enumerate(tasks):
            count = int(self.present[at])
            mean = float(self.sums[at]) / max(count, 1)
            if task.loss == "mse":
                loss = float(self.squares[at]) / max(count, 1) - mean * mean
            else:
                loss = -sum(p * float(np.log(p)) for p in (mean, 1.0 - mean) if p > 0)
            found.append(loss if count and loss > 0 else None)
        return found

    def warnings(self, tasks: Sequence[Task], group_names: Sequence[str]) -> list[str]:
        """What a reader of the model card has to know of a training window's labels.

        Args:
            tasks: m tasks.
            group_names: k groups.

        Returns:
            One sentence each.
        """
        found = []
        for task, given, positive in zip(tasks, self.present.tolist(), self.positive.tolist(), strict=True):
            if given == 0:
                found.append(f"task {task.name!r} has no label in the training window: its head is untrained")
                continue
            if positive == 0:
                found.append(f"task {task.name!r} has no positive among {given} labels of the training window")
            if given < self.rows:
                missing = self.rows - given
                found.append(f"task {task.name!r} has no label in {missing} of {self.rows} rows: they are masked")
        for name, count in zip(group_names, self.groups.tolist(), strict=True):
            if count == 0:
                found.append(f"group {name!r} has no row in the training window: heads of its own are untrained")
        return found


@dataclass(frozen=True)
class Loaded:
    """An encoded window.

    Attributes:
        shelf: Its rows.
        tally: What its labels add up to.
    """

    shelf: Shelf
    tally: Tally

    def sha256(self) -> str:
        """Of the packed rows in their order."""
        found = hashlib.sha256()
        for words in self.shelf.in_order(SLICE_ROWS):
            found.update(words.cpu().numpy().data)
        return found.hexdigest()


def survey(window: Window, spec: InputSpec, min_count: int) -> tuple[int, Vocabularies]:
    """The first pass over a window: what its columns hold.

    Args:
        window: The rows.
        spec: What the model reads.
        min_count: Ids seen in fewer rows are unknown.

    Returns:
        How many rows there are, and their vocabularies and scales.
    """
    rows = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal rows
        for table in slices(window):
            rows += table.num_rows
            yield table

    vocab = Vocabularies.fit(counted(), spec, min_count)
    return rows, vocab


@contextmanager
def load(
    window: Window,
    rows: int,
    spec: InputSpec,
    vocab: Vocabularies,
    tasks: tuple[Task, ...],
    groups: int,
    resident_mb: int,
    device: torch.device,
) -> Iterator[Loaded]:
    """The second pass over a window: encode it once, into memory or a temporary file.

    Args:
        window: The rows: spec's columns, ``group``, one label column per task.
        rows: How many there are.
        spec: What the model reads.
        vocab: Fitted on the training window.
        tasks: m tasks.
        groups: k.
        resident_mb: Largest encoded window that is kept in memory, in MiB.
        device: Where training runs.

    Yields:
        The encoded window; it is gone after the block.

    Raises:
        TrainingError: When there is no row or no label at all, or a label is out of range.
        SourceError: When a column is missing or can not be read.
    """
    if rows == 0:
        raise TrainingError("the window to train or validate on has no rows")
    history = 0 if spec.history is None else vocab.history_length
    layout = Layout(len(spec.indexed), history, len(spec.numeric), len(tasks))
    tally, wrong = Tally.empty(groups, len(tasks)), np.zeros(len(tasks), np.int64)
    shelf = make_shelf(layout, rows, resident_mb, device)
    try:
        for table in slices(window):
            group = group_codes(table, groups)
            columns = [_labels(table, task) for task in tasks]
            wrong += [_out_of_range(column, task) for column, task in zip(columns, tasks, strict=True)]
            labels = np.stack(columns, axis=1)
            tally.add(group, labels)
            encoded = encode(table, spec, vocab)
            arrays = (encoded.index, encoded.history, group, encoded.numeric, labels)
            shelf.append(layout.pack(Batch(*(torch.from_numpy(array) for array in arrays))))
        _require_labels(tally, wrong, tasks)
        yield Loaded(shelf, tally)
    finally:
        shelf.close()


def _labels(table: pa.Table, task: Task) -> NDArray[np.float32]:
    """A task's labels, NaN where null."""
    if task.name not in table.column_names:
        raise SourceError(f"label column {task.name!r} is missing; the table has {table.column_names}")
    column = table[task.name].cast(pa.float32()).combine_chunks()
    labels: NDArray[np.float32] = column.to_numpy(zero_copy_only=False)
    return labels


def _out_of_range(labels: NDArray[np.float32], task: Task) -> int:
    given = labels[~np.isnan(labels)]
    top = 1.0 if task.loss == "bce" else np.inf
    return int(((given < 0) | (given > top) | np.isinf(given)).sum())


def _require_labels(tally: Tally, wrong: NDArray[np.int64], tasks: Sequence[Task]) -> None:
    for task, bad, given in zip(tasks, wrong.tolist(), tally.present.tolist(), strict=True):
        if bad:
            allowed = "0 to 1" if task.loss == "bce" else "finite and at least 0"
            raise TrainingError(f"{bad} of {given} labels of task {task.name!r} are out of range: {allowed}")
    if not tally.present.any():
        names = [task.name for task in tasks]
        raise TrainingError(f"none of the {tally.rows} rows of the window has a label for any of {names}")
