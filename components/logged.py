"""Logged rounds of a held-out day with their candidate sets: who decided what, out of what, with which probability."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.context import Context
from components.heldout import Heldout, pair_context
from simulator.draws import uniform
from simulator.offpolicy import Candidates

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What a round earns: names, in the order of ``LoggedSlots.rewards``, and the log's column.
REWARDS = {"click": "click", "long_view": "long_view", "like": "like", "skip": "skip", "watch_s": "watch_ms"}


@dataclass(frozen=True)
class LoggedSlots:
    """N logged rounds in order of user, session and slot.

    Attributes:
        user_id: int64 [N].
        session_id: int64 [N].
        slot: int64 [N].
        session_row: int64 [N], row of the round's session in ``Heldout.sessions``.
        group: int8 [N], the user's group as of the day's first session.
        is_random: bool [N], filled uniformly from the candidates.
        propensity: float64 [N], NaN where unknown.
        rewards: float64 [N, len(REWARDS)], NaN where not recorded.
        candidates: N sets of indices into ``Heldout.ids``.
        scores: float64 [M], the production score of each candidate, NaN where unknown.
        users_share: Share of users that were kept.
        left_out: Rounds that are not here, by reason.
    """

    user_id: IntArray
    session_id: IntArray
    slot: IntArray
    session_row: IntArray
    group: NDArray[np.int8]
    is_random: NDArray[np.bool_]
    propensity: FloatArray
    rewards: FloatArray
    candidates: Candidates
    scores: FloatArray
    users_share: float
    left_out: dict[str, int]

    def select(self, rows: IntArray) -> "LoggedSlots":
        """Some of the rounds.

        Args:
            rows: int64 [K], ascending.

        Returns:
            Those rounds.
        """
        sizes = np.diff(self.candidates.offsets)[rows]
        offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
        shift = self.candidates.offsets[rows] - offsets[:-1]
        entries = np.arange(offsets[-1]) + np.repeat(shift, sizes)
        logged, probabilities = self.candidates.logged[rows], self.candidates.probabilities
        sets = Candidates(
            offsets,
            self.candidates.ids[entries],
            np.where(logged < 0, -1, logged - shift),
            None if probabilities is None else probabilities[entries],
        )
        per_round = ("user_id", "session_id", "slot", "session_row", "group", "is_random", "propensity", "rewards")
        kept = {name: getattr(self, name)[rows] for name in per_round}
        return replace(self, **kept, candidates=sets, scores=self.scores[entries])

    @property
    def owner(self) -> IntArray:
        """int64 [M], the round of each candidate."""
        return np.repeat(np.arange(len(self.user_id)), np.diff(self.candidates.offsets))


@dataclass(frozen=True)
class Pairs:
    """P distinct (session, video) pairs, and what a scorer needs of them.

    Attributes:
        session: int64 [P], rows of ``Heldout.sessions``.
        video: int64 [P], rows of ``Heldout.videos``, in the session's snapshot version.
        request: P rows of request columns.
        of_candidate: int64 [M], the pair of each candidate.
    """

    session: IntArray
    video: IntArray
    request: pa.Table
    of_candidate: IntArray


def distinct_pairs(held: Heldout, slots: LoggedSlots) -> Pairs:
    """The pairs that some rounds need; a candidate that comes again in its session has the same score.

    Args:
        held: The held-out day.
        slots: Its rounds, N with M candidates.

    Returns:
        The pairs.
    """
    row, pool = slots.session_row[slots.owner], np.int64(len(held.ids))
    pair, of_candidate = np.unique(row * pool + slots.candidates.ids, return_inverse=True)
    session, video = np.divmod(pair, pool)
    version = held.sessions["version"].to_numpy().astype(np.int64)[session]
    return Pairs(*pair_context(held, session, video + version * pool), of_candidate)


def logged_slots(context: Context, held: Heldout, day: date, pairs: int, first: int | None = None) -> LoggedSlots | str:
    """Read a day's rounds.

    Args:
        context: Pipeline and settings.
        held: The held-out sessions of the day.
        day: The day.
        pairs: Users are thinned evenly until about so many candidates are left.
        first: Only so many first slots of every session, None for all.

    Returns:
        The rounds, or why there are none.
    """
    requests = context.data.find("requests", day)
    if requests is None:
        return "the feed logs no candidate sets"
    asked = _first_of_each(requests.table())
    log = context.data.get("log", day).table()
    if first is not None:
        log, asked = log.filter(pc.less(log["position"], first)), asked.filter(pc.less(asked["slot"], first))
    keys = log.select(["session_id", "position"]).append_column("log_row", pa.array(np.arange(log.num_rows)))
    sets = asked.select(["session_id", "slot"]).append_column("set_row", pa.array(np.arange(asked.num_rows)))
    both = keys.join(sets, ["session_id", "position"], right_keys=["session_id", "slot"], join_type="inner")
    left_out = Counter({"no candidate set was logged": log.num_rows - both.num_rows})
    log_row, set_row = both["log_row"].to_numpy(), both["set_row"].to_numpy()
    order = np.lexsort(tuple(log[name].to_numpy()[log_row] for name in ("position", "session_id", "user_id")))
    log, asked = log.take(pa.array(log_row[order])), asked.take(pa.array(set_row[order]))

    fits = _fitting(held, log, asked, left_out)
    kept = np.flatnonzero(fits)
    sizes = pc.list_value_length(asked["candidates"]).to_numpy(zero_copy_only=False)[kept]
    total = int(sizes.sum())
    if not total:
        return f"none of the day's {sum(left_out.values())} rounds has a candidate set: {_words(left_out)}"
    share = min(1.0, pairs / total)
    user = log["user_id"].to_numpy()[kept]
    kept = kept[uniform(context.pipeline.simulator.seed, "replay users", user) <= share]
    if not len(kept):
        return "no user is left after thinning"
    return _slots(held, log.take(pa.array(kept)), asked.take(pa.array(kept)), share, dict(+left_out))


def _first_of_each(requests: pa.Table) -> pa.Table:
    """One candidate set per session and slot: the first that was logged."""
    session, slot = requests["session_id"].to_numpy(), requests["slot"].to_numpy()
    order = np.lexsort((slot, session))
    new = np.append(True, (np.diff(session[order]) != 0) | (np.diff(slot[order]) != 0))[: len(order)]
    return requests.take(pa.array(np.sort(order[new])))


def _fitting(held: Heldout, log: pa.Table, asked: pa.Table, left_out: Counter[str]) -> NDArray[np.bool_]:
    """A mask, bool [N]: rounds whose session and candidates are known; the others are counted."""
    count = log.num_rows
    known = np.isin(log["session_id"].to_numpy(), held.sessions["session_id"].to_numpy())
    lists = asked["candidates"].combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    entries = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    strange = np.bincount(np.repeat(np.arange(count), sizes), ~np.isin(entries, held.ids), minlength=count) > 0
    for why, bad in (
        ("the session is not a held-out one", ~known),
        ("the candidate set is empty", known & (sizes == 0)),
        ("a candidate has no features", known & strange),
    ):
        left_out[why] += int(bad.sum())
    fits: NDArray[np.bool_] = known & (sizes > 0) & ~strange
    return fits


def _slots(held: Heldout, log: pa.Table, asked: pa.Table, share: float, left_out: dict[str, int]) -> LoggedSlots:
    lists = asked["candidates"].combine_chunks()
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    ids = np.searchsorted(held.ids, pc.list_flatten(lists).to_numpy()).astype(np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    shown = np.searchsorted(held.ids, log["video_id"].to_numpy())
    at = np.flatnonzero(ids == shown[owner])
    logged = np.full(len(sizes), -1, dtype=np.int64)
    # The last assignment stands: backwards, so that it is the first place.
    logged[owner[at[::-1]]] = at[::-1]
    probabilities = _per_candidate(asked, "probabilities", sizes)
    given = _floats(log, "propensity")
    of_set = np.where(logged < 0, np.nan, probabilities[logged])
    session = held.sessions["session_id"].to_numpy()
    by_id = np.argsort(session, kind="stable")
    row = by_id[np.searchsorted(session, log["session_id"].to_numpy(), sorter=by_id)]
    columns = [_floats(log, name) / (1000.0 if name.endswith("_ms") else 1.0) for name in REWARDS.values()]
    return LoggedSlots(
        user_id=log["user_id"].to_numpy(),
        session_id=log["session_id"].to_numpy(),
        slot=log["position"].to_numpy().astype(np.int64),
        session_row=row,
        group=_first_group(held)[row],
        is_random=pc.fill_null(log["is_random"], False).to_numpy(zero_copy_only=False).astype(bool),
        propensity=np.where(np.isnan(given), of_set, given),
        rewards=np.column_stack(columns),
        candidates=Candidates(offsets, ids, logged, probabilities),
        scores=_per_candidate(asked, "scores", sizes),
        users_share=share,
        left_out=left_out,
    )


def _first_group(held: Heldout) -> NDArray[np.int8]:
    """int8 [S]: the group of each session's user as of the user's first session of the day."""
    user = held.sessions["user_id"].to_numpy()
    started = pc.cast(held.sessions["started_at"], pa.int64()).to_numpy()
    order = np.lexsort((started, user))
    _, first, back = np.unique(user[order], return_index=True, return_inverse=True)
    groups = held.sessions["group"].to_numpy()
    found = np.empty(len(user), dtype=np.int8)
    found[order] = groups[order][first][back]
    return found


def _per_candidate(asked: pa.Table, name: str, sizes: IntArray) -> FloatArray:
    """float64 [M] of a list column, NaN where a round's list is missing or of another length than its candidates."""
    lists = asked[name].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    fits = lengths == sizes
    values = np.full(int(sizes.sum()), np.nan)
    inside = pc.list_flatten(lists.filter(pa.array(fits)))
    values[np.repeat(fits, sizes)] = pc.cast(inside, pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _floats(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = pc.cast(table[name], pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _words(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} times {why}" for why, count in left_out.items() if count)
