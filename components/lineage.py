"""Lineage as OpenLineage events: a job per step, its inputs and outputs as partitions with their content hashes.

Switched on by ``MFH_LINEAGE_URL``. A dataset is a partition: its namespace is the lake, its name the path below it,
its version the content hash of the manifest. Inputs are those that the manifests of the outputs name, so lineage is
what was read, not what was declared.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from components import __version__
from components.context import Context, StepResult
from components.days import bounds
from components.errors import LakeError
from components.lake import Partition
from components.masking import mask

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent, RunState

log = logging.getLogger("mfh")

PRODUCER = f"https://pypi.org/project/mfh-pipeline/{__version__}"
TIMEOUT_S = 5.0


class Lineage(Protocol):
    """Told when a step begins and how it ends."""

    def started(self) -> None:
        """The step begins."""

    def done(self, result: StepResult) -> None:
        """The step has ended well."""

    def failed(self, message: str) -> None:
        """The step has ended with an error."""


class _Off:
    """Lineage is switched off."""

    def started(self) -> None:
        """Nothing."""

    def done(self, result: StepResult) -> None:
        """Nothing."""

    def failed(self, message: str) -> None:
        """Nothing."""


def open_lineage(context: Context, step: str, day: date, shard: int | None) -> Lineage:
    """What tells an OpenLineage receiver of one run of a step.

    Args:
        context: Pipeline, settings, run.
        step: The step's name.
        day: Interval day.
        shard: Of a step that is mapped over shards.

    Returns:
        The teller; one that says nothing where no receiver is set.
    """
    if not context.settings.lineage_url:
        return _Off()
    from openlineage.client.uuid import generate_new_uuid

    job = f"{context.pipeline.name}.{step}" if shard is None else f"{context.pipeline.name}.{step}.shard{shard}"
    return _Events(context, step, job, day, str(generate_new_uuid()))


@dataclass(frozen=True)
class _Events:
    """The events of one run of a step."""

    context: Context
    step: str
    job: str
    day: date
    run_id: str

    def started(self) -> None:
        from openlineage.client.event_v2 import RunState

        self._emit(RunState.START)

    def done(self, result: StepResult) -> None:
        from openlineage.client.event_v2 import RunState

        try:
            outputs = [one for name in result.outputs if (one := find(self.context, name)) is not None]
        except LakeError as error:
            log.warning("lineage of step %s for %s was not sent: %s", self.step, self.day, error)
            return
        written = {f"{one.manifest.dataset}/{one.manifest.day}" for one in outputs}
        read = {name: digest for one in outputs for name, digest in one.manifest.inputs.items() if name not in written}
        self._emit(RunState.COMPLETE, read, outputs)

    def failed(self, message: str) -> None:
        from openlineage.client.event_v2 import RunState

        self._emit(RunState.FAIL, error=message)

    def _emit(
        self,
        state: "RunState",
        read: Mapping[str, str] | None = None,
        outputs: list[Partition] | None = None,
        error: str = "",
    ) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent
        from openlineage.client.facet_v2 import error_message_run, job_type_job, nominal_time_run, processing_engine_run

        start, end = bounds(self.day, self.context.pipeline.feed.zone)
        facets: dict[str, Any] = {
            "nominalTime": nominal_time_run.NominalTimeRunFacet(start.isoformat(), end.isoformat()),
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(__version__, "mfh-pipeline"),
        }
        if error:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
        kind = job_type_job.JobTypeJobFacet("BATCH", "MFH", "STEP")
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=state,
            run=Run(self.run_id, facets),
            job=Job(self.context.settings.lineage_namespace, self.job, {"jobType": kind}),
            producer=PRODUCER,
            inputs=[_input(self.context, name, digest) for name, digest in sorted((read or {}).items())],
            outputs=[_output(self.context, one) for one in outputs or []],
        )
        self._send(event)

    def _send(self, event: "RunEvent") -> None:
        from requests import RequestException

        try:
            _client(self.context).emit(event)
        except (RequestException, OSError) as error:
            url = mask(self.context.settings.lineage_url)
            log.warning("lineage of step %s for %s was not sent to %s: %s", self.step, self.day, url, mask(str(error)))


def find(context: Context, name: str) -> Partition | None:
    """The partition that a manifest or a result calls ``dataset/day``, wherever in the lake it lies."""
    dataset, _, day = name.rpartition("/")
    one = date.fromisoformat(day)
    return context.runs.find(dataset, one) or context.data.find(dataset, one)


def _client(context: Context) -> "OpenLineageClient":
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

    settings = context.settings
    config = HttpConfig(settings.lineage_url, timeout=TIMEOUT_S, retry={"total": 1, "connect": 1, "read": 1})
    if settings.lineage_api_key:
        config.auth = ApiKeyTokenProvider({"api_key": settings.lineage_api_key})
    return OpenLineageClient(transport=HttpTransport(config))


def _namespace(context: Context) -> str:
    """OpenLineage's name of the store: the bucket, or the file system."""
    root = context.settings.lake_root
    return "/".join(root.split("/")[:3]) if "://" in root else "file"


def _name(partition: Partition) -> str:
    return partition.lake.path(partition.manifest.dataset, f"ds={partition.manifest.day}")


def _version(digest: str) -> Any:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return dataset_version_dataset.DatasetVersionDatasetFacet(digest)


def _input(context: Context, name: str, digest: str) -> "InputDataset":
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset

    found = find(context, name)
    statistics: dict[str, Any] = {}
    # A partition that was replaced meanwhile has other rows than the version that was read.
    if found is not None and found.content_hash == digest:
        facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(found.rows, _size(found))
        statistics = {"inputStatistics": facet}
    where = name if found is None else _name(found)
    return InputDataset(_namespace(context), where, facets={"version": _version(digest)}, inputFacets=statistics)


def _output(context: Context, partition: Partition) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset

    facets: dict[str, Any] = {"version": _version(partition.content_hash)}
    lines = next((entry.schema for entry in partition.manifest.files if entry.schema), "")
    pairs = [line.partition(": ") for line in lines.splitlines() if ": " in line and not line.startswith(" ")]
    if pairs:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, _, kind in pairs]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        partition.rows, _size(partition), len(partition.manifest.files)
    )
    return OutputDataset(
        _namespace(context), _name(partition), facets=facets, outputFacets={"outputStatistics": statistics}
    )


def _size(partition: Partition) -> int:
    return sum(entry.bytes for entry in partition.manifest.files)
