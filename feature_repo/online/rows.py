"""A feature view's values as one packed row of bytes per entity.

A row is a numpy record of fixed width (hash of the layout, bits of what is missing, numbers, ends of what varies in
length) followed by strings and lists, so that whole columns are packed and unpacked at once.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import from_feast_to_pyarrow_type
from numpy.typing import NDArray

from components.errors import ConfigError

# Feast's type of a value: field of its protobuf message, and the number behind it where there is one.
NUMBERS = {
    "Float32": ("float_val", "<f4"),
    "Float64": ("double_val", "<f8"),
    "Int32": ("int32_val", "<i4"),
    "Int64": ("int64_val", "<i8"),
    "Bool": ("bool_val", "u1"),
    "UnixTimestamp": ("unix_timestamp_val", "<i8"),
}
LISTS = {
    "Array(Float32)": ("float_list_val", "<f4"),
    "Array(Float64)": ("double_list_val", "<f8"),
    "Array(Int32)": ("int32_list_val", "<i4"),
    "Array(Int64)": ("int64_list_val", "<i8"),
}
TEXTS = {"String": "string_val", "Array(String)": "string_list_val"}

# Entity keys are those of Feast's third serialization, the only one that it still writes.
KEY_VERSION = 3


@dataclass(frozen=True)
class Column:
    """One feature of a layout.

    Attributes:
        name: The feature.
        kind: Feast's type, as text.
        arrow: Type of the column in Arrow.
    """

    name: str
    kind: str
    arrow: pa.DataType

    @property
    def is_fixed(self) -> bool:
        """Whether every value takes the same room."""
        return self.kind in NUMBERS

    @property
    def proto_field(self) -> str:
        """Field of Feast's protobuf value."""
        return TEXTS[self.kind] if self.kind in TEXTS else (NUMBERS | LISTS)[self.kind][0]


@dataclass(frozen=True)
class Layout:
    """Where each feature of a view lies in its rows.

    Attributes:
        columns: The features, in the view's order.
    """

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, view: FeatureView) -> "Layout":
        """The layout of a feature view.

        Args:
            view: A view as the registry holds it.

        Returns:
            The layout; equal schemas give equal layouts.

        Raises:
            ConfigError: When a feature is of a type that rows can not hold.
        """
        columns = []
        for field in view.features:
            kind = str(field.dtype)
            if kind not in NUMBERS and kind not in LISTS and kind not in TEXTS:
                known = ", ".join((*NUMBERS, *LISTS, *TEXTS))
                raise ConfigError(f"feature {field.name!r} of view {view.name!r} is of type {kind}; online are {known}")
            columns.append(Column(field.name, kind, from_feast_to_pyarrow_type(field.dtype)))
        return cls(tuple(columns))

    @property
    def digest(self) -> int:
        """Tells rows of this layout from those of a view that had other features."""
        return zlib.crc32(repr([(one.name, one.kind) for one in self.columns]).encode())

    @property
    def varying(self) -> tuple[Column, ...]:
        """Columns whose values lie behind the fixed part."""
        return tuple(one for one in self.columns if not one.is_fixed)

    @property
    def record(self) -> np.dtype[np.void]:
        """The fixed part of a row."""
        numbers = [(f"v{at}", NUMBERS[one.kind][1]) for at, one in enumerate(self.columns) if one.is_fixed]
        missing = ("missing", "u1", ((len(self.columns) + 7) // 8,))
        ends = [("ends", "<u4", (len(self.varying),))] if self.varying else []
        return np.dtype([("digest", "<u4"), missing, *numbers, *ends])

    def pack(self, table: pa.Table) -> list[bytes]:
        """Rows of a table.

        Args:
            table: N rows with at least the layout's columns.

        Returns:
            N packed rows. NaN counts as missing, as it does in Feast's own stores.
        """
        rows = table.num_rows
        fixed = np.zeros(rows, self.record)
        fixed["digest"] = self.digest
        missing = np.zeros((rows, len(self.columns)), bool)
        heaps: list[tuple[memoryview, NDArray[np.int64]]] = []
        for at, one in enumerate(self.columns):
            column = _cast(table[one.name], one)
            missing[:, at] = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
            if one.is_fixed:
                fixed[f"v{at}"] = _numbers(column)
            else:
                heaps.append(_heap(column, one))
        fixed["missing"] = np.packbits(missing, axis=1)
        if heaps:
            lengths = np.stack([np.diff(offsets) for _, offsets in heaps], axis=1)
            fixed["ends"] = np.cumsum(lengths, axis=1)
        data, width = memoryview(fixed.tobytes()), self.record.itemsize
        fronts = (data[at : at + width] for at in range(0, rows * width, width))
        slices = [_slices(heap, offsets) for heap, offsets in heaps]
        return [b"".join(parts) for parts in zip(fronts, *slices, strict=True)]

    def unpack(self, rows: Sequence[bytes | None]) -> pa.Table:
        """A table of rows.

        Args:
            rows: N packed rows; None, or a row of another layout, is an entity of which nothing is known.

        Returns:
            N rows with the layout's columns.
        """
        width, digest = self.record.itemsize, struct.pack("<I", self.digest)
        blank = digest + b"\xff" * ((len(self.columns) + 7) // 8)
        blank += bytes(width - len(blank))
        kept = [row if row is not None and row[:4] == digest else blank for row in rows]
        fixed = np.frombuffer(b"".join(row[:width] for row in kept), self.record)
        missing = np.unpackbits(fixed["missing"], axis=1, count=len(self.columns)).astype(bool)
        arrays, place = [], 0
        for at, one in enumerate(self.columns):
            gone = missing[:, at]
            if one.is_fixed:
                arrays.append(_number_array(fixed[f"v{at}"], gone, one))
                continue
            ends = fixed["ends"][:, place].astype(np.int64)
            starts = fixed["ends"][:, place - 1].astype(np.int64) if place else np.zeros_like(ends)
            place += 1
            parts = [row[width + a : width + b] for row, a, b in zip(kept, starts.tolist(), ends.tolist(), strict=True)]
            arrays.append(_varying_array(parts, gone, one))
        return pa.Table.from_arrays(arrays, [one.name for one in self.columns])

    def protos(self, rows: Sequence[bytes | None]) -> Iterator[dict[str, Value] | None]:
        """Rows as Feast's protobuf values: for each one a value per feature, None where nothing is known."""
        digest = struct.pack("<I", self.digest)
        table = self.unpack(rows)
        columns = {one.name: [_proto(value, one) for value in table[one.name].to_pylist()] for one in self.columns}
        for at, row in enumerate(rows):
            known = row is not None and row[:4] == digest
            yield {name: values[at] for name, values in columns.items()} if known else None

    def table(self, values: Sequence[dict[str, Value]]) -> pa.Table:
        """Feast's protobuf values as a table that can be packed; a feature that a row lacks is missing."""
        arrays = []
        for one in self.columns:
            found = [_python(row.get(one.name), one) for row in values]
            arrays.append(pa.array(found, one.arrow))
        return pa.Table.from_arrays(arrays, [one.name for one in self.columns])


def entity_keys(table: pa.Table, join_keys: Sequence[str]) -> list[bytes]:
    """Entity keys as Feast serializes them.

    Args:
        table: N rows with the join keys, integers or strings.
        join_keys: Names of the key columns.

    Returns:
        N keys.
    """
    columns = [table[name] for name in join_keys]
    if len(columns) == 1 and pa.types.is_integer(columns[0].type):
        # One integer key is a constant and eight bytes, and nearly every entity has just that.
        front = _serialized(join_keys, [Value(int64_val=0)])[:-8]
        return [front + struct.pack("<q", value) for value in columns[0].to_pylist()]
    wrap: list[Callable[[Any], Value]] = [
        (lambda v: Value(int64_val=v)) if pa.types.is_integer(column.type) else (lambda v: Value(string_val=v))
        for column in columns
    ]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [_serialized(join_keys, [make(value) for make, value in zip(wrap, row, strict=True)]) for row in rows]


def _serialized(join_keys: Sequence[str], values: list[Value]) -> bytes:
    key = EntityKey(join_keys=list(join_keys), entity_values=values)
    found: bytes = serialize_entity_key(key, entity_key_serialization_version=KEY_VERSION)
    return found


def _cast(column: pa.ChunkedArray, one: Column) -> pa.Array:
    array = column.combine_chunks()
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    return pc.cast(array, one.arrow)


def _numbers(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    filled = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0)
    numbers: NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return numbers


def _number_array(values: NDArray[Any], gone: NDArray[np.bool_], one: Column) -> pa.Array:
    if one.kind == "Bool":
        return pa.array(values.astype(bool), mask=gone)
    if one.kind == "UnixTimestamp":
        return pc.cast(pa.array(values, pa.int64(), mask=gone), one.arrow)
    return pa.array(np.ascontiguousarray(values), one.arrow, mask=gone)


def _heap(column: pa.Array, one: Column) -> tuple[memoryview, NDArray[np.int64]]:
    """Bytes of all values behind one another, and N + 1 offsets into them."""
    if one.kind in LISTS:
        values = pc.fill_null(pc.list_flatten(column), 0)
        numbers = np.ascontiguousarray(values.to_numpy(zero_copy_only=False).astype(LISTS[one.kind][1]))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        data, width = numbers.tobytes(), numbers.itemsize
    else:
        if one.kind == "Array(String)":
            column = pa.array(
                [None if value is None else json.dumps(value) for value in column.to_pylist()], pa.string()
            )
        binary = pc.fill_null(pc.cast(column, pa.binary()), b"")
        lengths = pc.binary_length(binary).to_numpy(zero_copy_only=False)
        data, width = b"".join(binary.to_pylist()), 1
    return memoryview(data), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64) * width])


def _slices(heap: memoryview, offsets: NDArray[np.int64]) -> Iterator[memoryview]:
    return (heap[a:b] for a, b in pairwise(offsets.tolist()))


def _varying_array(parts: list[bytes], gone: NDArray[np.bool_], one: Column) -> pa.Array:
    if one.kind in LISTS:
        dtype = np.dtype(LISTS[one.kind][1])
        lengths = np.fromiter(map(len, parts), np.int64, len(parts)) // dtype.itemsize
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = pa.array(np.frombuffer(b"".join(parts), dtype), one.arrow.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(gone))
    if one.kind == "Array(String)":
        lists = [None if absent else json.loads(part) for part, absent in zip(parts, gone.tolist(), strict=True)]
        return pa.array(lists, one.arrow)
    return pc.cast(pa.array(parts, pa.binary(), mask=gone), one.arrow)


def _proto(value: Any, one: Column) -> Value:
    if value is None:
        return Value()
    if one.kind in LISTS or one.kind == "Array(String)":
        message = getattr(Value_pb2, Value.DESCRIPTOR.fields_by_name[one.proto_field].message_type.name)
        return Value(**{one.proto_field: message(val=value)})
    if one.kind == "UnixTimestamp":
        value = int(value.timestamp())
    return Value(**{one.proto_field: value})


def _python(value: Value | None, one: Column) -> Any:
    if value is None or value.WhichOneof("val") != one.proto_field:
        return None
    found = getattr(value, one.proto_field)
    if one.kind in LISTS or one.kind == "Array(String)":
        return list(found.val)
    return found * 1_000_000 if one.kind == "UnixTimestamp" else found
