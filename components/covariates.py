"""What is known of the held-out day's users before the exposure: the covariates of CUPED.

From the user's first session of the day, whose features are as of its start: activity of the days before, and, for
users who have none, what is known at sign-up (tenure and the feed's static attributes).
"""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.context import Context
from components.feed.source import features_of

# Of an attribute the most frequent values become columns of 0 and 1; rarer ones are told apart from those only.
MOST_VALUES = 4


def covariates(context: Context, held: date) -> pa.Table:
    """Covariates of every user with a session on the held-out day.

    Args:
        context: Pipeline and settings.
        held: The held-out day; ``dataset`` has written its sessions.

    Returns:
        ``user_id`` and float64 columns, one row per user: log counts of impressions, seconds and sessions and smoothed
        rates of completion and long views in the days that define activity, log tenure, the history that came with
        the feed where there is one, and indicators of attributes. Null where unknown.

    Raises:
        MissingPartitionError: When the day's sessions are not in the lake.
    """
    features = features_of(context.pipeline.feed)
    days = context.pipeline.groups.activity_days
    wanted = [
        *(
            f"user_{name}_{days}d"
            for name in ("impressions", "watch_s", "sessions", "completion_rate", "long_view_rate")
        ),
        "log_tenure_days",
        *(f.name for f in features if f.entity == "user" and f.name.startswith("user_past_") and f.kind == "count"),
    ]
    categories = [f.name for f in features if f.entity == "user" and f.kind == "category"]
    table = context.data.get("sessions", held).table()
    table = table.select(
        ["user_id", "session_id", "started_at", *(n for n in wanted if n in table.column_names), *categories]
    )
    table = table.sort_by([("user_id", "ascending"), ("started_at", "ascending"), ("session_id", "ascending")])
    first = np.unique(table["user_id"].to_numpy(), return_index=True)[1]
    table = table.take(pa.array(first))
    found = {"user_id": table["user_id"]}
    found |= {name: pc.cast(table[name], pa.float64()) for name in wanted if name in table.column_names}
    for name in categories:
        values = pc.fill_null(table[name], "")
        counts = pc.value_counts(values).to_pylist()
        kept = sorted(counts, key=lambda one: (-one["counts"], one["values"]))[:MOST_VALUES]
        for one in kept[: len(counts) - 1]:
            found[f"{name}={one['values']}"] = pc.cast(pc.equal(values, one["values"]), pa.float64())
    return pa.table(found)
