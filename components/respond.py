"""Respond step: fit how users respond to what they are shown, on the window and the held-out day.

The response model shares no parameters and no architecture with an arm and is cross-fitted by user; see
``simulator/response.py``. Here the examples become its arrays.
"""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.dataset import read_examples
from components.errors import TrainingError
from components.feature_list import Entity
from components.feed.source import features_of
from components.lake import Partition
from simulator.draws import uniform
from simulator.evidence import LoggedScores
from simulator.metrics import INTERACTIONS
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_data import ResponseData
from simulator.serving import names_topic


def respond(context: Context, day: date) -> StepResult:
    """Fit the response model of an interval day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its training set and its own log (for returning) must be in the lake.

    Returns:
        Hash of the model, its rows, and how well leaving and returning were calibrated out of fold.

    Raises:
        MissingPartitionError: When the training set or a log is not in the lake.
        TrainingError: When the log shows too little to fit leaving or watching.
    """
    from simulator.response_fit import fit_response

    use_threads(context.pipeline)
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    held = date.fromisoformat(record["holdout_day"])
    days = [*(date.fromisoformat(one) for one in record["train_days"]), held]
    limit = context.pipeline.simulator.response_rows
    data = response_data(context, days, record["activity_threshold"], until=day, rows=limit)
    context.notify(0, 1, "fit response model")
    fit = fit_response(data, response_settings(context), logged_scores(context, days))
    context.notify(1, 1, "fit response model")
    if fit.model is None:
        raise TrainingError(
            f"the response model of {day} can not be fitted on {len(data.user_id)} impressions: {fit.reason}"
        )
    requests = [found for one in days if (found := context.data.find("requests", one)) is not None]
    inputs = inputs_of(training_set, context.data.get("log", day), *requests)
    with context.runs.write("response", day, context.pipeline.config_hash, inputs) as writer:
        for name, content in fit.model.save().items():
            writer.bytes(name, content)
    member = fit.model.members[0]
    facts = {
        "rows": len(data.user_id),
        "leave_slope": member.leave_fit.slope,
        "return_slope": member.return_fit and member.return_fit.slope,
        "no_return_model": fit.model.return_reason,
        "unfitted": dict(fit.model.unfitted),
    }
    return StepResult("respond", day, inputs_of(context.runs.get("response", day)), facts)


def response_settings(context: Context) -> ResponseSettings:
    """Settings of the response model, from the pipeline's."""
    chosen = context.pipeline.simulator
    return ResponseSettings(
        seed=chosen.seed,
        folds=chosen.folds,
        ensemble=chosen.ensemble,
        epochs=chosen.epochs,
        skip_below_s=context.pipeline.feed.skip_below_ms / 1000,
    )


def load_response(partition: Partition) -> ResponseModel:
    """The response model of a partition that ``respond`` wrote."""
    return ResponseModel.load({entry.name: partition.bytes(entry.name) for entry in partition.manifest.files})


def numeric_columns(context: Context, entity: Entity) -> list[str]:
    """Numeric model inputs of an entity that the response model reads; no id is among them.

    Of a video's counters only those of exposure: how it was received is evidence from the whole log (``evidence``),
    which a snapshot of that morning has less of.
    """
    features = features_of(context.pipeline.feed)
    age = "log_tenure_days" if entity == "user" else "log_video_age_days"
    kinds = ("count", "rate", "number")
    chosen = [f for f in features if f.entity == entity and f.kind in kinds]
    if entity == "video":
        chosen = [f for f in chosen if f.window_days is None or f.source == "impressions"]
    return [f.name for f in chosen] + [age]


def topic_names(context: Context, day: date) -> tuple[str, ...]:
    """Topics of all videos known at the end of a day, in order: what topic codes point into."""
    column = context.data.get("videos", day).table(columns=["topic"])["topic"]
    return tuple(sorted(name for name in pc.unique(column).to_pylist() if name))


def topic_codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int32]:
    """int32 [N]: places in ``names``, -1 where there is none."""
    index = pc.index_in(column, pa.array(names, column.type))
    codes: NDArray[np.int32] = pc.fill_null(index, -1).to_numpy().astype(np.int32)
    return codes


def interests(context: Context, table: pa.Table, names: tuple[str, ...]) -> NDArray[np.int32]:
    """int32 [N, A]: topics that the users' attributes name (such as an interest ticked at sign-up), -1 = none."""
    features = features_of(context.pipeline.feed)
    columns = [f.name for f in features if f.entity == "user" and f.kind == "category"]
    codes = [topic_codes(table[name], names) for name in columns]
    return np.column_stack(codes) if codes else np.full((table.num_rows, 1), -1, dtype=np.int32)


def newness(context: Context, tenure_days: pa.ChunkedArray) -> NDArray[np.float32]:
    """float32 [N]: exp(-2 x tenure / the tenure at which users are new no longer); 0 where the tenure is unknown."""
    tenure = tenure_days.to_numpy(zero_copy_only=False).astype(np.float64)
    limit = max(context.pipeline.groups.new_tenure_days, 1)
    fading = np.exp(-2.0 * np.maximum(tenure, 0.0) / limit)
    return np.where(np.isnan(tenure), 0.0, fading).astype(np.float32)


def logged_scores(context: Context, days: list[date]) -> LoggedScores | None:
    """Production scores of the candidates of some days, None where the feed logs none."""
    users, videos, scores = [], [], []
    for one in days:
        partition = context.data.find("requests", one)
        if partition is None:
            continue
        table = partition.table(columns=["user_id", "candidates", "scores"])
        table = table.filter(pc.is_valid(table["scores"]))
        lists, values = table["candidates"].combine_chunks(), table["scores"].combine_chunks()
        owner = pc.list_parent_indices(lists).to_numpy()
        if not len(owner):
            continue
        users.append(table["user_id"].to_numpy()[owner])
        videos.append(pc.list_flatten(lists).to_numpy())
        scores.append(pc.list_flatten(values).to_numpy(zero_copy_only=False).astype(np.float64))
    if not users:
        return None
    return LoggedScores(np.concatenate(users), np.concatenate(videos), np.concatenate(scores))


def response_data(
    context: Context, days: list[date], threshold: float, until: date, rows: int | None = None
) -> ResponseData:
    """Impressions of several days as the response model's input.

    Args:
        context: Pipeline and settings.
        days: Days whose examples are in the lake, in order.
        threshold: Activity threshold of the groups.
        until: Newest day that may be looked at, for returning; its log must be in the lake.
        rows: Thin users evenly until about so many impressions are left, those of the last day last, since their
            sessions are rolled out; None keeps all.

    Returns:
        One row per impression.
    """
    user, video = numeric_columns(context, "user"), numeric_columns(context, "video")
    categories = [f.name for f in features_of(context.pipeline.feed) if f.entity == "user" and f.kind == "category"]
    ids = ["user_id", "video_id", "session_id", "position", "watch_ms", "duration_ms", "propensity", "video_topic"]
    columns = list(dict.fromkeys([*ids, *INTERACTIONS, *user, *video, *categories]))
    names = topic_names(context, days[-1])
    kept = None if rows is None else _thinned(context, days, rows)
    tables, day_index, returned = [], [], []
    for one in days:
        table = read_examples(context, [one], threshold, columns)
        if kept is not None:
            table = table.filter(pc.is_in(table["user_id"], value_set=kept))
        tables.append(table)
        day_index.append(np.full(table.num_rows, one.toordinal(), dtype=np.int32))
        returned.append(_returned(context, table["user_id"], one + timedelta(days=1), until))
    table = pa.concat_tables(tables)
    day_of = np.concatenate(day_index)
    session = table["session_id"].to_numpy()
    position = table["position"].to_numpy()
    interactions = np.column_stack([pc.fill_null(table[name], -1).to_numpy() for name in INTERACTIONS]).astype(np.int8)
    topic = topic_codes(table["video_topic"], names)
    named = names_topic(interests(context, table, names), topic).astype(np.float32)
    return ResponseData(
        user_id=table["user_id"].to_numpy(),
        video_id=table["video_id"].to_numpy(),
        day=day_of,
        session_id=session,
        position=position.astype(np.int32),
        group=table["group"].to_numpy(),
        newness=newness(context, table["tenure_days"]),
        topic=topic,
        user_features=matrix(table, user),
        video_features=np.column_stack([matrix(table, video), named]),
        duration_s=_seconds(table["duration_ms"]),
        watch_s=_seconds(table["watch_ms"]),
        behaviours=INTERACTIONS,
        interactions=interactions,
        left=_last_of_session(table["user_id"].to_numpy(), day_of, session, position),
        returned=np.concatenate(returned),
        propensity=table["propensity"].to_numpy(zero_copy_only=False).astype(np.float64),
    )


def _thinned(context: Context, days: list[date], rows: int) -> pa.Array | None:
    """Ids of the users to keep, None for all."""
    columns = [context.data.get("examples", one).table(columns=["user_id"])["user_id"].to_numpy() for one in days]
    users, count = np.unique(np.concatenate(columns), return_counts=True)
    if count.sum() <= rows:
        return None
    last = np.isin(users, columns[-1])
    order = np.lexsort((uniform(0, "response users", users), ~last))
    return pa.array(users[order][np.cumsum(count[order]) <= rows])


def matrix(table: pa.Table, columns: list[str]) -> NDArray[np.float32]:
    """float32 [N, C], null as NaN."""
    return np.column_stack([table[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in columns])


def _seconds(milliseconds: pa.ChunkedArray) -> NDArray[np.float64]:
    values: NDArray[np.float64] = milliseconds.to_numpy(zero_copy_only=False).astype(np.float64) / 1000
    return values


def _last_of_session(
    user: NDArray[np.int64], day: NDArray[np.int32], session: NDArray[np.int64], position: NDArray[np.int32]
) -> NDArray[np.int8]:
    order = np.lexsort((position, session, user, day))
    last = np.ones(len(order), dtype=np.int8)
    same = (user[order][1:] == user[order][:-1]) & (session[order][1:] == session[order][:-1])
    last[:-1] = ~(same & (day[order][1:] == day[order][:-1]))
    found = np.empty(len(order), dtype=np.int8)
    found[order] = last
    return found


def _returned(context: Context, user: pa.ChunkedArray, next_day: date, until: date) -> NDArray[np.int8]:
    """Whether each row's user is in the log of the next day; -1 where that day is not to be looked at."""
    partition = context.data.find("log", next_day) if next_day <= until else None
    if partition is None:
        return np.full(len(user), -1, dtype=np.int8)
    active = pc.unique(partition.table(columns=["user_id"])["user_id"])
    found: NDArray[np.int8] = pc.is_in(user, active).to_numpy().astype(np.int8)
    return found
