"""What one partition of the lake is made of: its manifest, and the writer that collects its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One data file of a partition."""

    name: str
    bytes: int
    sha256: str
    rows: int | None = None
    schema: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What a partition holds and what it was made from."""

    dataset: str
    day: str
    content_hash: str
    rows: int
    files: tuple[FileEntry, ...]
    config_hash: str
    inputs: dict[str, str]
    code_version: str
    facts: dict[str, Any]
    version: int = MANIFEST_VERSION


class PartitionWriter:
    """Collects the files of one partition in a staging folder; ``Lake.write`` commits them.

    ``facts`` go into the manifest, ``run`` into ``run.json``; ``aside`` holds files that differ between equal
    runs (pages with times in them) and stand beside the manifest, outside the content hash.
    """

    def __init__(self, staging: Path, run: Mapping[str, Any]) -> None:
        self._staging = staging
        self._entries: list[FileEntry] = []
        self.aside: dict[str, bytes] = {}
        self.facts: dict[str, Any] = {}
        self.run: dict[str, Any] = dict(run)

    def table(self, table: pa.Table, name: str = "part-0") -> None:
        """Add a table as ``<name>.parquet``; equal tables give equal bytes."""
        path = self._staging / f"{name}.parquet"
        pq.write_table(table.combine_chunks(), path, compression="zstd", row_group_size=131_072)
        self._entries.append(
            _entry(path, rows=table.num_rows, schema=table.schema.to_string(show_schema_metadata=False))
        )

    def bytes(self, name: str, data: bytes) -> None:
        """Add a file of any kind."""
        path = self._staging / name
        path.write_bytes(data)
        self._entries.append(_entry(path))

    def text(self, name: str, text: str) -> None:
        """Add a text file in UTF-8."""
        self.bytes(name, text.encode())

    def json(self, name: str, data: Any) -> None:
        """Add a JSON file with sorted keys, so that equal data gives equal bytes. NaN is refused."""
        self.bytes(name, json_bytes(data))

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """The files so far, by name."""
        return tuple(sorted(self._entries, key=lambda entry: entry.name))


def json_bytes(data: Any) -> bytes:
    """JSON with sorted keys, so that equal data gives equal bytes; NaN is refused."""
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False).encode()


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest.

    Args:
        text: Content of ``manifest.json``.

    Returns:
        The manifest.

    Raises:
        ValueError: When it is not JSON or of another version.
        TypeError: When fields are missing or unknown.
    """
    data = json.loads(text)
    if not isinstance(data, dict):
        raise TypeError(f"a {type(data).__name__} instead of an object")
    if data.get("version") != MANIFEST_VERSION:
        raise ValueError(f"manifest version {data.get('version')}, this code reads {MANIFEST_VERSION}")
    files = tuple(FileEntry(**entry) for entry in data.pop("files"))
    return Manifest(files=files, **data)


def _entry(path: Path, rows: int | None = None, schema: str | None = None) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.name, path.stat().st_size, digest, rows, schema)
