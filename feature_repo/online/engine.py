"""The batch engine of ``materialize``: Arrow from the offline store to packed rows, without a Python object per value.

Feast's local engine turns every value into a protobuf message before the online store sees it. Ours hands the table to
the store's own way in, and is otherwise the same: rows of the interval, the newest one of each entity.
"""

from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from feast import Entity
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from components.errors import ConfigError
from feature_repo.online.store import RowOnlineStore


class BulkEngineConfig(FeastConfigBaseModel):
    """The engine has no settings but its own name."""

    type: Literal["feature_repo.online.engine.BulkEngine"] = "feature_repo.online.engine.BulkEngine"


class BulkEngine(ComputeEngine):
    """Materializes feature views over lake partitions into an online store of packed rows."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Nothing to prepare: the engine is this process."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Nothing to remove."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **_: Any) -> LocalMaterializationJob:
        view, store = task.feature_view, self.online_store
        if not isinstance(store, RowOnlineStore):
            raise ConfigError(
                f"batch_engine {type(self).__name__} writes packed rows, which {type(store).__name__} does not take; "
                "use one of feature_repo.online, or Feast's engine 'local'"
            )
        source = view.batch_source
        to_source = {new: old for old, new in (source.field_mapping or {}).items()}
        table = self.offline_store.pull_all_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=[to_source.get(name, name) for name in view.join_keys],
            feature_name_columns=[to_source.get(field.name, field.name) for field in view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column or None,
            start_date=task.start_time,
            end_date=task.end_time,
        ).to_arrow()
        table = table.rename_columns([source.field_mapping.get(name, name) for name in table.column_names])
        rows = newest(table, list(view.join_keys), source.timestamp_field)
        store.write_table(self.repo_config, view, rows, task.end_time, since=task.start_time)
        job = f"{view.name}-{task.start_time}-{task.end_time}"
        return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.SUCCEEDED)


def newest(table: pa.Table, keys: list[str], time: str) -> pa.Table:
    """The last row of each entity.

    Args:
        table: Rows with the keys and a time column.
        keys: Join keys.
        time: Time column.

    Returns:
        One row per entity, by key.
    """
    order = pc.sort_indices(table, [*((name, "ascending") for name in keys), (time, "descending")])
    if table.num_rows < 2:
        return table
    ordered = table.select(keys).take(order)
    changed = pa.scalar(False)
    for name in keys:
        column = ordered[name].combine_chunks()
        changed = pc.or_(changed, pc.not_equal(column[1:], column[:-1]))
    return table.take(order.filter(pa.concat_arrays([pa.array([True]), changed])))
