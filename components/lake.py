"""The lake: datasets of daily partitions, on a local folder or an object store under one code path.

Layout of one partition::

    <root>/<dataset>/ds=2022-04-28/<content hash>/part-0.parquet ...     the data, named by what it is
    <root>/<dataset>/ds=2022-04-28/manifest.json                         the commit point, written last
    <root>/<dataset>/ds=2022-04-28/run.json                              run id, try, timings: not content

Data files are never changed in place. A partition exists when its manifest does; replacing the manifest is
one atomic operation (rename on a folder, put on an object store), so a reader sees the old partition or the
new one, and two writers of one day end with one valid partition. Equal content gives an equal hash.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import S3FileSystem

from components import __version__
from components.config import Settings
from components.errors import LakeError, MissingPartitionError
from components.partition import Manifest, PartitionWriter, json_bytes, parse_manifest

MANIFEST = "manifest.json"
RUN_RECORD = "run.json"


@dataclass(frozen=True)
class Partition:
    """A committed partition, ready to read."""

    lake: "Lake"
    manifest: Manifest

    @property
    def content_hash(self) -> str:
        """SHA-256 over the names and bytes of the data files."""
        return self.manifest.content_hash

    @property
    def rows(self) -> int:
        """Rows over all Parquet files."""
        return self.manifest.rows

    @property
    def folder(self) -> str:
        """Path of the data files inside the lake's file system."""
        return self.lake.path(self.manifest.dataset, f"ds={self.manifest.day}", self.content_hash[:16])

    def table(self, name: str = "part-0", columns: list[str] | None = None) -> pa.Table:
        """One Parquet file of the partition as a table.

        Args:
            name: File name without ``.parquet``.
            columns: Which columns to read, None for all.

        Returns:
            The table, in the order in which it was written.
        """
        path = f"{self.folder}/{name}.parquet"
        return pq.read_table(path, columns=columns, filesystem=self.lake.arrow_fs, partitioning=None)

    def bytes(self, name: str) -> bytes:
        """Content of one file of the partition."""
        data: bytes = self.lake.fs.cat_file(f"{self.folder}/{name}")
        return data

    def json(self, name: str) -> Any:
        """One JSON file of the partition."""
        return json.loads(self.bytes(name))

    def has(self, name: str) -> bool:
        """Whether the partition holds a file of that full name."""
        return any(entry.name == name for entry in self.manifest.files)

    def url(self, name: str) -> str:
        """Where a file of the partition lies, for people and links."""
        return f"{self.folder}/{name}"

    def aside(self, name: str) -> str:
        """Where a file that stands beside the manifest lies (see ``PartitionWriter.aside``)."""
        return self.lake.path(self.manifest.dataset, f"ds={self.manifest.day}", name)


class Lake:
    """A folder of datasets. ``scope`` gives the same lake below a sub-folder.

    Args:
        root: Path inside the file system.
        fs: The file system, None for local folders.
        run: What identifies the run that writes; it goes into every ``run.json``.
    """

    def __init__(
        self, root: str, fs: fsspec.AbstractFileSystem | None = None, run: Mapping[str, Any] | None = None
    ) -> None:
        self.fs = fs if fs is not None else LocalFileSystem()
        self.root = root.rstrip("/")
        self.run = dict(run or {})

    @classmethod
    def open(cls, settings: Settings, run: Mapping[str, Any] | None = None) -> Self:
        """The lake that the settings name.

        Args:
            settings: ``lake_root`` is a folder, ``s3://bucket/prefix``, or any other fsspec URL.
            run: What identifies the run that writes.

        Returns:
            The lake; nothing is created yet.
        """
        root = settings.lake_root
        if root.startswith("s3://"):
            options: dict[str, Any] = {}
            if settings.lake_endpoint:
                options["endpoint_override"] = settings.lake_endpoint
                options["scheme"] = "http" if settings.lake_endpoint.startswith("http://") else "https"
            if settings.lake_access_key:
                options |= {"access_key": settings.lake_access_key, "secret_key": settings.lake_secret_key}
            return cls(root.removeprefix("s3://"), ArrowFSWrapper(S3FileSystem(**options)), run)
        fs, path = fsspec.url_to_fs(root)
        return cls(path, fs, run)

    @property
    def is_local(self) -> bool:
        """Whether partitions are plain folders that can be renamed."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def arrow_fs(self) -> Any:
        """The file system for Arrow's own readers: Arrow's, where there is one."""
        # Through fsspec, Arrow's threads run Python; one still at it when the interpreter ends aborts the process.
        return self.fs.fs if isinstance(self.fs, ArrowFSWrapper) else self.fs

    def scope(self, *parts: str) -> "Lake":
        """The lake below a sub-folder, over the same file system."""
        return Lake(self.path(*parts), self.fs, self.run)

    def path(self, *parts: str) -> str:
        """A path inside the lake's file system."""
        return "/".join((self.root, *parts))

    def find(self, dataset: str, day: date) -> Partition | None:
        """The partition of a day, or None when it has no manifest.

        Args:
            dataset: Name of the dataset.
            day: The partition's day.

        Returns:
            The partition or None.

        Raises:
            LakeError: When a manifest is there but can not be read or understood.
        """
        path = self.path(dataset, f"ds={day}", MANIFEST)
        try:
            text = self.fs.cat_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LakeError(f"{path} can not be read: {error}; check permissions ('mfh doctor' does)") from error
        try:
            return Partition(self, parse_manifest(text))
        except (ValueError, TypeError, KeyError) as error:
            raise LakeError(f"{path} is damaged ({error}); delete the file and run the day again") from error

    def get(self, dataset: str, day: date) -> Partition:
        """The partition of a day.

        Args:
            dataset: Name of the dataset.
            day: The partition's day.

        Returns:
            The partition.

        Raises:
            MissingPartitionError: When it has no manifest.
        """
        partition = self.find(dataset, day)
        if partition is None:
            raise MissingPartitionError(
                f"no partition of {dataset!r} for {day} in {self.root}; run the step that writes it "
                f"('mfh run --from {day} --to {day}' runs them all)"
            )
        return partition

    def days(self, dataset: str) -> list[date]:
        """Days of a dataset that have a manifest, in order."""
        found = self.fs.glob(self.path(dataset, "ds=*", MANIFEST))
        return sorted(date.fromisoformat(str(path).split("/")[-2].removeprefix("ds=")) for path in found)

    def dataset(self, dataset: str, days: Iterable[date], name: str = "part-0") -> ds.Dataset:
        """One Parquet file per day as a lazy Arrow dataset, for scans that push filters down.

        Args:
            dataset: Name of the dataset.
            days: Which days, each with a manifest.
            name: File name without ``.parquet``.

        Returns:
            The dataset.

        Raises:
            MissingPartitionError: When a day has no manifest.
        """
        files = [f"{self.get(dataset, day).folder}/{name}.parquet" for day in days]
        return ds.dataset(files, filesystem=self.arrow_fs, format="parquet")

    @contextmanager
    def write(
        self, dataset: str, day: date, config_hash: str = "", inputs: dict[str, str] | None = None
    ) -> Iterator[PartitionWriter]:
        """Write a partition: everything or nothing.

        Args:
            dataset: Name of the dataset.
            day: The partition's day.
            config_hash: Hash of the settings that shaped the content.
            inputs: Content hashes of what it was made from, by ``dataset/day``.

        Yields:
            A writer that takes the partition's files; leaving the block without an error commits them.

        Raises:
            LakeError: When there is no space or no permission; the lake is then unchanged.
        """
        staging: Path | None = None
        try:
            staging = self._staging()
            writer = PartitionWriter(staging, self.run)
            yield writer
            self._commit(dataset, day, writer, staging=staging, config_hash=config_hash, inputs=inputs or {})
        except OSError as error:
            raise LakeError(
                f"{dataset!r} for {day} could not be written below {self.root}: {error}; "
                "nothing was changed. Check free space and permissions ('mfh doctor' does)"
            ) from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def _staging(self) -> Path:
        if not self.is_local:
            return Path(tempfile.mkdtemp(prefix="mfh-"))
        parent = Path(self.root) / "_staging"
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def _commit(
        self,
        dataset: str,
        day: date,
        writer: PartitionWriter,
        *,
        staging: Path,
        config_hash: str,
        inputs: dict[str, str],
    ) -> None:
        entries = writer.entries
        content = hashlib.sha256(json.dumps([(e.name, e.sha256) for e in entries]).encode()).hexdigest()
        manifest = Manifest(
            dataset=dataset,
            day=day.isoformat(),
            content_hash=content,
            rows=sum(entry.rows or 0 for entry in entries),
            files=entries,
            config_hash=config_hash,
            inputs=dict(sorted(inputs.items())),
            code_version=__version__,
            facts=writer.facts,
        )
        folder = self.path(dataset, f"ds={day}")
        target = f"{folder}/{content[:16]}"
        if self.is_local:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._rename(staging, Path(target))
        else:
            for entry in entries:
                self.fs.put_file(str(staging / entry.name), f"{target}/{entry.name}")
        for name, data in writer.aside.items():
            self._replace(f"{folder}/{name}", data)
        self._replace(f"{folder}/{RUN_RECORD}", json_bytes(writer.run))
        self._replace(f"{folder}/{MANIFEST}", json_bytes(asdict(manifest)))

    @staticmethod
    def _rename(staging: Path, target: Path) -> None:
        try:
            staging.rename(target)
        except OSError:
            # Equal content is there already: by an earlier run, or by one that was faster.
            if not target.is_dir():
                raise

    def _replace(self, path: str, data: bytes) -> None:
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        aside = f"{path}.{uuid4().hex}"
        try:
            Path(aside).write_bytes(data)
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)
