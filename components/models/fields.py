"""From tables to arrays: vocabularies, scales and one fused index space for every id and category.

A fitted :class:`Vocabularies` belongs to one training window and travels with the weights in the bundle, so that
offline training and serving read a column in exactly the same way.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.errors import BundleError, ConfigError, SourceError
from components.models.crosses import Cross

# Rows far outside the training window's range saturate instead of driving the network to infinity.
NUMERIC_LIMIT = 10.0

# History lists hold values of this id column and share its embedding rows.
HISTORY_ID = "video_id"


@dataclass(frozen=True)
class InputSpec:
    """Which columns a model reads, how it reads each, and whose column each one is.

    Attributes:
        ids: int64 id columns: wide embeddings, values seen too rarely are unknown.
        categories: String, bool or integer columns with few values: narrow embeddings.
        numeric: Columns read as float32 after normalisation.
        history: A list<int64> column of video ids, newest first, mean-pooled through ``video_id``'s rows; or None.
        user_columns: Columns that are a user's.
        video_columns: Columns that are a video's.
        context_columns: Columns that belong to the request or to the pair.
        crosses: How those numeric columns come about that belong to the pair.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    history: str | None = None
    user_columns: tuple[str, ...] = ()
    video_columns: tuple[str, ...] = ()
    context_columns: tuple[str, ...] = ()
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self) -> None:
        sides = (*self.user_columns, *self.video_columns, *self.context_columns)
        for what, names in (("read twice", self.columns), ("given to two sides", sides)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"model inputs {twice} are {what}")
        if stray := sorted(set(self.columns) ^ set(sides)):
            raise ConfigError(
                f"model inputs {stray} must be both read (ids, categories, numeric, history) "
                "and owned (user_columns, video_columns, context_columns)"
            )
        if self.history is not None and HISTORY_ID not in self.ids:
            raise ConfigError(f"history {self.history!r} needs {HISTORY_ID!r} among the id columns")
        crossed = {cross.name for cross in self.crosses}
        if stray := sorted(crossed - (set(self.numeric) & set(self.context_columns))):
            raise ConfigError(f"crosses {stray} must be numeric and context columns")

    @property
    def indexed(self) -> tuple[str, ...]:
        """Columns with an embedding, ids first: the order of ``Encoded.index``."""
        return (*self.ids, *self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the model reads."""
        return (*self.indexed, *self.numeric, *(() if self.history is None else (self.history,)))


@dataclass(frozen=True, eq=False)
class Vocabularies:
    """Known values and scales of one training window.

    The fused index space: row 0 is padding, then for every field of ``InputSpec.indexed`` in order one row for
    unknown or null and one row per known value.

    Attributes:
        values: Known values per field, sorted; int64 or string arrays.
        means: float64 [n], means of the numeric columns.
        stds: float64 [n], standard deviations; 0 for a column that does not vary.
        history_length: Longest history list kept; the newest entries stay.
        id_fields: How many of the fields are ids.
    """

    values: tuple[pa.Array, ...]
    means: NDArray[np.float64]
    stds: NDArray[np.float64]
    history_length: int
    id_fields: int

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row (the unknown one) of each field, and one past the last row."""
        return (1, *(1 + np.cumsum([len(v) + 1 for v in self.values], dtype=np.int64)).tolist())

    @property
    def id_rows(self) -> int:
        """Rows up to the end of the id fields, the padding row included."""
        return self.offsets[self.id_fields]

    @property
    def rows(self) -> int:
        """All rows of the fused index space."""
        return self.offsets[-1]

    @classmethod
    def fit(cls, tables: pa.Table | Iterable[pa.Table], spec: InputSpec, min_count: int) -> "Vocabularies":
        """Collect the values and scales of a training window, in memory that grows with distinct values alone.

        Args:
            tables: The window's rows with every column of ``spec``, whole or in parts.
            spec: What the model reads.
            min_count: Ids seen in fewer rows share the unknown row, which is how it gets trained.

        Returns:
            The fitted vocabularies; equal for equal parts with rows in any order.
        """
        counts: dict[str, list[pa.StructArray]] = {name: [] for name in spec.indexed}
        scales = [Scale() for _ in spec.numeric]
        longest = 1
        for table in [tables] if isinstance(tables, pa.Table) else tables:
            for name in spec.indexed:
                counts[name] = [_added(counts[name], pc.value_counts(_indexable(table, name).drop_null()))]
            for scale, name in zip(scales, spec.numeric, strict=True):
                scale.add(_numbers(table, name))
            if spec.history is not None:
                longest = max(longest, pc.max(pc.list_value_length(_column(table, spec.history))).as_py() or 0)
        values = []
        for name in spec.indexed:
            known = counts[name][0].field("values") if counts[name] else pa.array([], pa.string())
            if name in spec.ids and counts[name]:
                known = known.filter(pc.greater_equal(counts[name][0].field("counts"), min_count))
            values.append(known.take(pc.array_sort_indices(known)))
        means, stds = (np.array([getattr(scale, name) for scale in scales], np.float64) for name in ("mean", "std"))
        return cls(tuple(values), means, stds, longest, len(spec.ids))

    def constant(self, spec: InputSpec) -> tuple[str, ...]:
        """Numeric columns that did not vary in the window: whatever their value, they are read as 0."""
        return tuple(name for name, std in zip(spec.numeric, self.stds, strict=True) if std == 0)

    def to_json(self, spec: InputSpec) -> str:
        """Text from which :meth:`from_json` restores the same vocabularies; equal content gives equal text."""
        fields = [
            {"name": name, "type": str(values.type), "values": values.to_pylist()}
            for name, values in zip(spec.indexed, self.values, strict=True)
        ]
        numeric = [
            {"name": name, "mean": mean, "std": std}
            for name, mean, std in zip(spec.numeric, self.means.tolist(), self.stds.tolist(), strict=True)
        ]
        content = {"fields": fields, "numeric": numeric, "history_length": self.history_length}
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, spec: InputSpec) -> "Vocabularies":
        """Restore vocabularies.

        Args:
            text: What :meth:`to_json` wrote.
            spec: The spec they were fitted for.

        Returns:
            The vocabularies.

        Raises:
            BundleError: When the text is damaged or is of another spec.
        """
        try:
            content = json.loads(text)
            fields, numeric = content["fields"], content["numeric"]
            found = (tuple(f["name"] for f in fields), tuple(n["name"] for n in numeric))
            if found != (spec.indexed, spec.numeric):
                raise BundleError(f"vocabularies are of other columns than the model's inputs: {found}")
            types = {"int64": pa.int64(), "string": pa.string()}
            return cls(
                tuple(pa.array(f["values"], types[f["type"]]) for f in fields),
                np.array([n["mean"] for n in numeric], np.float64),
                np.array([n["std"] for n in numeric], np.float64),
                int(content["history_length"]),
                len(spec.ids),
            )
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise BundleError(f"vocabularies can not be read: {error}") from error


@dataclass
class Scale:
    """Mean and spread of a column, from parts: Chan, Golub and LeVeque, *Updating Formulae*, 1979, eq. 2.1.

    Attributes:
        count: Finite values so far.
        mean: Their mean.
        squares: Sum of their squared deviations from the mean.
        lowest: Smallest of them.
        highest: Largest of them.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a part: float64 [N], what is not finite is left out."""
        # Sorted, because the order of a floating-point sum must not depend on the order of the rows.
        column = np.sort(values[np.isfinite(values)])
        if not column.size:
            return
        mean = float(column.mean())
        total, apart = self.count + column.size, mean - self.mean
        self.squares += float(((column - mean) ** 2).sum()) + apart * apart * self.count * column.size / total
        self.mean += apart * column.size / total
        self.count = total
        self.lowest, self.highest = min(self.lowest, column[0]), max(self.highest, column[-1])

    @property
    def std(self) -> float:
        """Standard deviation; 0 without two different values."""
        return float(np.sqrt(self.squares / self.count)) if self.lowest < self.highest else 0.0


def _added(before: list[pa.StructArray], counts: pa.StructArray) -> pa.StructArray:
    """Counts of values, summed with those of earlier parts."""
    if not before:
        return counts
    both = pa.concat_tables(
        [pa.Table.from_struct_array(one) for one in (*before, counts)], promote_options="permissive"
    )
    summed = both.group_by("values", use_threads=False).aggregate([("counts", "sum")]).combine_chunks()
    columns = [summed[name].combine_chunks() for name in ("values", "counts_sum")]
    return pa.StructArray.from_arrays(columns, ["values", "counts"])


@dataclass(frozen=True, eq=False)
class Encoded:
    """A table as the encoder reads it.

    Attributes:
        index: int32 [N, F], rows of the fused index space; 0 (padding) in columns that were not asked for.
        numeric: float32 [N, n], normalised, 0 where null.
        history: int32 [N, L], rows of the fused index space, 0 where the list is shorter; L is 0 without a history.
    """

    index: NDArray[np.int32]
    numeric: NDArray[np.float32]
    history: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.index)


def encode(table: pa.Table, spec: InputSpec, vocab: Vocabularies, columns: tuple[str, ...] | None = None) -> Encoded:
    """Turn a table into index and number arrays.

    Args:
        table: N rows with the columns asked for.
        spec: What the model reads.
        vocab: Fitted on the training window.
        columns: Columns of ``spec`` to read, None for all; the others become padding, whose embedding is zero, so
            that the encoded parts of a user, a video and a request add up to the whole.

    Returns:
        Arrays of N rows.

    Raises:
        SourceError: When a column is missing or can not be read as its kind.
    """
    wanted = set(spec.columns if columns is None else columns)
    rows, offsets = table.num_rows, vocab.offsets
    index = np.zeros((rows, len(spec.indexed)), np.int32)
    for at, (name, values) in enumerate(zip(spec.indexed, vocab.values, strict=True)):
        if name in wanted:
            index[:, at] = _lookup(_indexable(table, name), values, name) + offsets[at]
    numeric = np.zeros((rows, len(spec.numeric)), np.float32)
    for at, name in enumerate(spec.numeric):
        if name in wanted:
            # A column that never varied has untrained weights, so that a new value must not reach them.
            scaled = (_numbers(table, name) - vocab.means[at]) / (vocab.stds[at] or np.inf)
            scaled[~np.isfinite(scaled)] = 0.0
            numeric[:, at] = np.clip(scaled, -NUMERIC_LIMIT, NUMERIC_LIMIT)
    history = np.zeros((rows, 0 if spec.history is None else vocab.history_length), np.int32)
    if spec.history is not None and spec.history in wanted:
        field = spec.ids.index(HISTORY_ID)
        _fill_history(_column(table, spec.history), vocab.values[field], offsets[field], history)
    return Encoded(index, numeric, history)


def _fill_history(lists: pa.Array, values: pa.Array, offset: int, out: NDArray[np.int32]) -> None:
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    place = np.arange(len(parents)) - (np.cumsum(lengths) - lengths)[parents]
    kept = place < out.shape[1]
    codes = _lookup(pc.cast(pc.list_flatten(lists), pa.int64()), values, "history") + offset
    out[parents[kept], place[kept]] = codes[kept]


def _lookup(column: pa.Array, values: pa.Array, name: str) -> NDArray[np.int64]:
    """Place of each value within its field: 0 for unknown or null, else 1 + its place among the known values."""
    try:
        found = pc.index_in(pc.cast(column, values.type), value_set=values, skip_nulls=True)
    except pa.ArrowInvalid as error:
        raise SourceError(f"column {name!r} can not be read as {values.type}: {error}") from error
    codes: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return codes


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise SourceError(f"the model reads column {name!r}, which is missing; the table has {table.column_names}")
    column = table[name].combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _indexable(table: pa.Table, name: str) -> pa.Array:
    column = _column(table, name)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.cast(column, pa.int64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pc.cast(column, pa.string())
    raise SourceError(f"column {name!r} must hold integers or strings to be embedded, found {kind}")


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, NaN where null; always a fresh array."""
    try:
        column: Any = pc.cast(_column(table, name), pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"column {name!r} can not be read as numbers: {error}") from error
    return np.array(column.to_numpy(zero_copy_only=False), np.float64)
