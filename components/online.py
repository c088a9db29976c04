"""Features as a request sees them: read from the online store, as of the request's moment.

The views are those that training reads through Feast's offline join. They are read straight into columns, and the age
of values is judged by the request's own clock, as the join does. Who is not online is counted, and gets the defaults of
the feature list.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.context import Context
from components.feature_list import Feature
from components.materialize import online_until, rows_of
from components.store import open_store

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView


@dataclass(frozen=True)
class Read:
    """What was read of N entities.

    Attributes:
        table: N rows: the key, and a column per feature of every view; null where nothing is held.
        since: timestamp [N], from when on the entity is known (sign-up, upload); null where that is unknown.
        known: bool [N], whether any view holds anything of the entity.
    """

    table: pa.Table
    since: pa.ChunkedArray
    known: NDArray[np.bool_]


class OnlineFeatures:
    """Reads features of users and videos online; opened once, it serves any number of requests.

    Args:
        context: Pipeline and settings.
        features: Which features will be asked for; their views are read.

    Raises:
        OnlineStoreError: At the first read, when the store can not be reached.
    """

    def __init__(self, context: Context, features: Collection[Feature]) -> None:
        names = {feature.view for feature in features}
        self.store: FeatureStore = open_store(context)
        self.unknown: Counter[str] = Counter()
        self._rows = rows_of(self.store)
        self._views: dict[str, list[FeatureView]] = {}
        for view in self.store.list_feature_views():
            if view.online and view.name in names:
                self._views.setdefault(",".join(view.join_keys), []).append(view)

    def until(self) -> datetime | None:
        """The newest moment (UTC) up to which the store is filled; None for an empty one."""
        return online_until(self.store)[0]

    def read(self, entity: str, ids: Sequence[int] | NDArray[np.int64], moment: datetime | None) -> Read:
        """Read entities of one kind.

        Args:
            entity: ``user`` or ``video``.
            ids: Whose features, N ids.
            moment: When the request is made; None reads whatever is held, however old.

        Returns:
            The features; entities that are not online are counted in ``unknown``.

        Raises:
            OnlineStoreError: When the store can not be reached.
        """
        table = pa.table({f"{entity}_id": pa.array(ids, pa.int64())})
        keys, known = table, np.zeros(table.num_rows, bool)
        since = np.zeros(table.num_rows, np.int64)
        for view in self._views.get(f"{entity}_id", []):
            found = self._rows.read_table(self.store.config, view, keys, moment)
            for name in found.table.column_names:
                table = table.append_column(name, found.table[name])
            known |= found.known
            if not view.ttl:
                # A profile is stamped with the moment from which it is known; the first moment of all is "ever".
                since = np.maximum(since, found.event)
        self.unknown[entity] += int((~known).sum())
        stamps = pa.array(since, pa.timestamp("us", "UTC"), mask=since <= 0)
        return Read(table, pa.chunked_array([stamps]), known)
