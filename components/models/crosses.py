"""Inputs of (user, candidate) pairs: what a user's lists say of the candidate's topic or creator.

A user's row holds a list of keys and, aligned with it, lists of values; the pair's input is the value at the
candidate's key. One function computes it for training rows and where an arm scores candidates.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.errors import SourceError


@dataclass(frozen=True)
class Cross:
    """One numeric input of a pair.

    Attributes:
        name: The input's column.
        keys: List column of the user: topics (strings) or creators (int64), each at most once.
        values: list<float32> column of the user, in the order of ``keys``.
        item: The video's column that is looked up among the keys.
    """

    name: str
    keys: str
    values: str
    item: str


class CrossTable:
    """Crosses of the rows of a users' table with the rows of a videos' table.

    Args:
        users: U rows with the crosses' ``keys`` and ``values``.
        videos: V rows with their ``item`` columns.
        crosses: Which inputs.

    Raises:
        SourceError: When a column is missing, or a list of values is not as long as its keys.
    """

    def __init__(self, users: pa.Table, videos: pa.Table, crosses: Iterable[Cross]) -> None:
        self.crosses = tuple(crosses)
        self._lists: dict[str, _Lists] = {}
        self._values: dict[str, NDArray[np.float32]] = {}
        for cross in self.crosses:
            if cross.keys not in self._lists:
                self._lists[cross.keys] = _Lists(_column(users, cross.keys), _column(videos, cross.item))
            values = _column(users, cross.values)
            lists = self._lists[cross.keys]
            if not np.array_equal(_lengths(values), lists.lengths):
                raise SourceError(f"lists of {cross.values!r} are not as long as those of {cross.keys!r}")
            flat = pc.cast(pc.list_flatten(values), pa.float32()).to_numpy(zero_copy_only=False)
            self._values[cross.name] = flat[lists.order]

    def columns(self, user: NDArray[np.integer], video: NDArray[np.integer]) -> dict[str, pa.Array]:
        """Values of N pairs.

        Args:
            user: Integer [N], rows of the users' table.
            video: Integer [N], rows of the videos' table.

        Returns:
            float32 [N] by the crosses' names, 0 where the user's list lacks the candidate's key.
        """
        places = {keys: lists.find(user, video) for keys, lists in self._lists.items()}
        found = {}
        for cross in self.crosses:
            place, values = places[cross.keys], self._values[cross.name]
            picked = np.zeros(len(place), np.float32)
            known = place >= 0
            picked[known] = values[place[known]]
            found[cross.name] = pa.array(picked)
        return found


class _Lists:
    """Keys of all users in one sorted array: row of the user x number of keys + code of the key."""

    def __init__(self, keys: pa.Array, items: pa.Array) -> None:
        flat = pc.list_flatten(keys)
        known = pc.unique(flat)
        self.lengths = _lengths(keys)
        codes = pc.index_in(flat, known).to_numpy(zero_copy_only=False).astype(np.int64)
        self.size = max(len(known), 1)
        joined = np.repeat(np.arange(len(keys)), self.lengths) * self.size + codes
        self.order = np.argsort(joined, kind="stable")
        self.sorted = joined[self.order]
        found = pc.index_in(pc.cast(items, known.type), known, skip_nulls=True)
        self.items: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def find(self, user: NDArray[np.integer], video: NDArray[np.integer]) -> NDArray[np.int64]:
        """int64 [N]: places in the sorted keys, -1 where there is none."""
        if not len(self.sorted):
            return np.full(len(user), -1, np.int64)
        item = self.items[np.asarray(video, np.int64)]
        wanted = np.asarray(user, np.int64) * self.size + item
        place = np.minimum(np.searchsorted(self.sorted, wanted), len(self.sorted) - 1)
        return np.where((item >= 0) & (self.sorted[place] == wanted), place, -1)


def cross_columns(table: pa.Table, crosses: Iterable[Cross]) -> dict[str, pa.Array]:
    """Crosses of each row's user with the same row's video.

    Args:
        table: N rows with the crosses' ``keys``, ``values`` and ``item`` columns.
        crosses: Which inputs.

    Returns:
        float32 [N] by the crosses' names.
    """
    rows = np.arange(table.num_rows)
    return CrossTable(table, table, crosses).columns(rows, rows)


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise SourceError(f"a pair's input needs column {name!r}, which is missing; the table has {table.column_names}")
    column = table[name].combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
