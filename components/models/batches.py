"""Encoded rows and the order in which training reads them: in memory, or in a file in constant memory.

A row is packed into 32-bit words side by side (index, history, cell, numbers, labels), so that a batch is one gather of
whole rows, a file holds rows one after the other, and one hash covers the content.

One rule orders the rows wherever they lie, so that both kinds of shelf train the same weights to the bit: the window
is cut into blocks of ``BLOCK_ROWS`` rows; an epoch draws an order of the blocks, reads ``POOL_BLOCKS`` of them at a
time into a pool, and draws an order of the pool's rows. A window that fits into one pool is thereby shuffled as a
whole. Every draw has a generator of its own, keyed by (seed, epoch, pool), so a resumed training needs no generator's
state and skips what it has read without reading it again.
"""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import torch
from torch import Tensor

from components.errors import TrainingError

BLOCK_ROWS = 1_024
POOL_BLOCKS = 256

WORD_BYTES = 4


def keyed(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A generator that depends on its key alone.

    Args:
        device: Where it draws.
        *key: What the draw is for: a seed, an epoch, a purpose.

    Returns:
        A fresh generator.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    # torch takes seeds up to 2^63 on every device.
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Batch:
    """Rows as a training step reads them.

    Attributes:
        index: int32 [B, F].
        history: int32 [B, L].
        cell: int64 [B].
        numeric: float32 [B, n].
        labels: float32 [B, m], NaN = missing.
    """

    index: Tensor
    history: Tensor
    cell: Tensor
    numeric: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.cell)


@dataclass(frozen=True)
class Layout:
    """Places of a packed row's parts.

    Attributes:
        fields: F, index columns.
        history: L, length of a history list.
        numbers: n, numeric columns.
        labels: m, label columns.
    """

    fields: int
    history: int
    numbers: int
    labels: int

    @property
    def width(self) -> int:
        """Words of a row."""
        return self.fields + self.history + 1 + self.numbers + self.labels

    def pack(self, batch: Batch) -> Tensor:
        """Rows as words: int32 [B, width]."""
        words = (batch.index, batch.history, batch.cell.to(torch.int32).unsqueeze(1))
        return torch.cat([*words, batch.numeric.view(torch.int32), batch.labels.view(torch.int32)], dim=1)

    def unpack(self, rows: Tensor) -> Batch:
        """Views into packed rows (a copy of the cells): int32 [B, width] to a batch."""
        sizes = [self.fields, self.history, 1, self.numbers, self.labels]
        index, history, cell, numeric, labels = torch.split(rows, sizes, dim=1)
        return Batch(index, history, cell.squeeze(1).long(), numeric.view(torch.float32), labels.view(torch.float32))


@dataclass(frozen=True)
class Pool:
    """Rows that are read in one go.

    Attributes:
        rows: int32 [P, width], on the training device.
        order: int64 [p], places in ``rows`` in the order of training; in host memory.
        present: uint8 [P], labels of each row that are not missing; in host memory.
    """

    rows: Tensor
    order: Tensor
    present: Tensor


class Shelf(Protocol):
    """Where encoded rows lie.

    Attributes:
        layout: Places of a row's parts.
        rows: N.
    """

    layout: Layout
    rows: int

    def pools(self, seed: int, epoch: int, skip: int) -> Iterator[Pool]:
        """The pools of an epoch in the order of training, without its first ``skip`` rows."""

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Iterator[Tensor]:
        """Packed rows as they were given, ``size`` at a time: pieces first, first + every, … of all."""

    def close(self) -> None:
        """Give back what the shelf holds."""


def pool_orders(rows: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The order of training.

    Args:
        rows: N.
        seed: The training's seed.
        epoch: Which pass over the window.

    Yields:
        Blocks of a pool in the order in which they are read, int64 [b], and the order of its rows, int64 [p], as places
        in those blocks laid end to end.
    """
    blocks = -(-rows // BLOCK_ROWS)
    order = torch.randperm(blocks, generator=keyed("cpu", seed, epoch, "blocks"))
    for number, chosen in enumerate(torch.split(order, POOL_BLOCKS)):
        short = blocks * BLOCK_ROWS - rows if bool((chosen == blocks - 1).any()) else 0
        count = len(chosen) * BLOCK_ROWS - short
        yield chosen, torch.randperm(count, generator=keyed("cpu", seed, epoch, "pool", number))


def unread(rows: int, seed: int, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`pool_orders` without its first ``skip`` rows; pools that have been read to the end are left out."""
    for blocks, order in pool_orders(rows, seed, epoch):
        if skip < len(order):
            yield blocks, order[skip:]
        skip = max(skip - len(order), 0)


def batches(
    shelf: Shelf, size: int, *, seed: int, epoch: int, skip: int = 0
) -> Generator[tuple[Tensor, int], None, None]:
    """Batches of an epoch.

    Args:
        shelf: The window.
        size: Rows of a batch; the last one has what is left.
        seed: The training's seed.
        epoch: Which pass.
        skip: Batches to leave out at the beginning.

    Yields:
        Packed rows, int32 [B, width] on the training device, and how many of their labels are present.
    """
    held: list[Tensor] = []
    missing, present = size, 0
    for pool in shelf.pools(seed, epoch, skip * size):
        places = pool.order.to(pool.rows.device, non_blocking=True)
        start = 0
        while start < len(places):
            stop = min(start + missing, len(places))
            held.append(pool.rows.index_select(0, places[start:stop]))
            present += int(pool.present[pool.order[start:stop]].sum())
            missing -= stop - start
            start = stop
            if missing == 0:
                yield held[0] if len(held) == 1 else torch.cat(held), present
                held, missing, present = [], size, 0
    if held:
        yield torch.cat(held), present


class Resident:
    """Rows in memory: the device's, where they fit.

    Args:
        layout: Places of a row's parts.
        rows: N.
        device: Where training runs.
    """

    def __init__(self, layout: Layout, rows: int, device: torch.device) -> None:
        self.layout, self.rows = layout, rows
        self._words = torch.empty(rows, layout.width, dtype=torch.int32, device=device)
        self._present = torch.empty(rows, dtype=torch.uint8)
        self._filled = 0

    def append(self, words: Tensor) -> None:
        """Add packed rows, int32 [B, width] in host memory."""
        here = slice(self._filled, self._filled + len(words))
        self._words[here] = words.to(self._words.device)
        self._present[here] = present_labels(self.layout, words)
        self._filled = here.stop

    def pools(self, seed: int, epoch: int, skip: int) -> Iterator[Pool]:
        """See :meth:`Shelf.pools`."""
        for blocks, order in unread(self.rows, seed, epoch, skip):
            places = (blocks.unsqueeze(1) * BLOCK_ROWS + torch.arange(BLOCK_ROWS)).flatten()
            yield Pool(self._words, places[places < self.rows][order], self._present)

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Iterator[Tensor]:
        """See :meth:`Shelf.in_order`."""
        for start in range(first * size, self.rows, every * size):
            yield self._words[start : start + size]

    def close(self) -> None:
        """Forget the rows."""
        self._words = torch.empty(0, self.layout.width, dtype=torch.int32)


class Streamed:
    """Rows in a temporary file without a name, which is gone with the process; the next pool is read ahead.

    The file is read with plain reads, not mapped: mapped pages would count as the process's own memory.

    Args:
        layout: Places of a row's parts.
        rows: N.
        device: Where training runs; pools go to a GPU through pinned memory.
    """

    def __init__(self, layout: Layout, rows: int, device: torch.device) -> None:
        self.layout, self.rows, self._device = layout, rows, device
        self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="mfh-window-"))  # noqa: SIM115  # closed by close()

    def append(self, words: Tensor) -> None:
        """Add packed rows, int32 [B, width] in host memory.

        Args:
            words: The rows.

        Raises:
            TrainingError: When the disk is full.
        """
        try:
            self._file.write(words.numpy().data)
        except OSError as error:
            size = self.rows * self.layout.width * WORD_BYTES
            raise TrainingError(
                f"the encoded window ({size >> 20} MiB) can not be written to {tempfile.gettempdir()}: {error}; name a "
                "larger folder in TMPDIR, or raise train.resident_mb to keep the window in memory"
            ) from error

    def pools(self, seed: int, epoch: int, skip: int) -> Iterator[Pool]:
        """See :meth:`Shelf.pools`."""
        self._file.flush()
        ahead: deque[tuple[Future[Tensor], Tensor]] = deque()
        with ThreadPoolExecutor(1, "mfh-window") as reader:
            for blocks, order in unread(self.rows, seed, epoch, skip):
                ahead.append((reader.submit(self._blocks, blocks.tolist()), order))
                if len(ahead) == 2:
                    yield self._pool(*ahead.popleft())
            while ahead:
                yield self._pool(*ahead.popleft())

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Iterator[Tensor]:
        """See :meth:`Shelf.in_order`."""
        self._file.flush()
        for start in range(first * size, self.rows, every * size):
            words = torch.empty(min(size, self.rows - start), self.layout.width, dtype=torch.int32)
            self._read(words, start)
            yield words.to(self._device)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _pool(self, read: "Future[Tensor]", order: Tensor) -> Pool:
        words = read.result()
        return Pool(words.to(self._device, non_blocking=True), order, present_labels(self.layout, words))

    def _blocks(self, blocks: list[int]) -> Tensor:
        counts = [min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS) for block in blocks]
        pinned = self._device.type == "cuda"
        words = torch.empty(sum(counts), self.layout.width, dtype=torch.int32, pin_memory=pinned)
        for block, part in zip(blocks, torch.split(words, counts), strict=True):
            self._read(part, block * BLOCK_ROWS)
        return words

    def _read(self, words: Tensor, row: int) -> None:
        """Fill contiguous words from the rows that begin at ``row``."""
        into = memoryview(words.numpy().data).cast("B")
        place, done = row * self.layout.width * WORD_BYTES, 0
        while done < len(into):
            count = os.preadv(self._file.fileno(), [into[done:]], place + done)
            if count == 0:
                raise TrainingError(f"the encoded window ends at byte {place + done}: its temporary file was cut off")
            done += count


def present_labels(layout: Layout, words: Tensor) -> Tensor:
    """Labels of each row that are not missing: int32 [B, width] to uint8 [B]."""
    labels = words[:, layout.width - layout.labels :].view(torch.float32)
    return (~torch.isnan(labels)).sum(1).to(torch.uint8)


def make_shelf(layout: Layout, rows: int, resident_mb: int, device: torch.device) -> Resident | Streamed:
    """An empty shelf of the kind that the window's size asks for.

    Args:
        layout: Places of a row's parts.
        rows: N.
        resident_mb: Largest window that is kept in memory, in MiB.
        device: Where training runs; of a GPU's free memory a window takes at most half.

    Returns:
        The shelf; ``append`` fills it.
    """
    size = rows * layout.width * WORD_BYTES
    limit = resident_mb << 20
    if device.type == "cuda":
        limit = min(limit, torch.cuda.mem_get_info(device)[0] // 2)
    return Resident(layout, rows, device) if size <= limit else Streamed(layout, rows, device)
