"""Rung V2: simulating the logging policy on days that the response model never saw, do the logged numbers come back?

Every slot that the log reached shows what the log showed; a simulated user who stays longer is served as the logging
policy would have: a softmax over the completed production scores where the feed logs them, videos by how often they
were exposed where it does not. What is tested is the user, not the ranking: seconds, skips, interactions, leaving,
returning, per segment, and how deep sessions go.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from components.checks.rung import Found, Notify, State
from components.context import Context
from components.errors import ConfigError, TrainingError
from components.heldout import Heldout, load_heldout, session_arrays, video_arrays
from components.inputs import activity_threshold
from components.respond import logged_scores, response_data, response_settings
from components.steps import run_step
from simulator import draws
from simulator.analysis import logged_outcomes
from simulator.metrics import GROUPS, METRICS, SEGMENTS
from simulator.response import ResponseModel
from simulator.response_data import ResponseData
from simulator.serving import Ranking, Sessions, Videos
from simulator.session import RolloutSettings, rollout

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WITHIN, POWERED = 0.05, 0.20
CONFIDENCE = 0.95
# Sessions by depth: shares of one impression, two to three, ...
DEPTHS = (1, 2, 4, 8, 16)
ROLLOUTS = 8


@dataclass(frozen=True)
class Cell:
    """One number of one segment.

    Attributes:
        metric: Name.
        segment: Whose users.
        users: Users (sessions, for depths) that it is a mean over.
        logged: What the log says; None where it does not.
        low: Lower end of the logged number's own interval.
        high: Upper end.
        simulated: What came back.
        state: Passed, failed, or not powered (the interval is wider than 20 % to either side).
    """

    metric: str
    segment: str
    users: int
    logged: float | None
    low: float | None
    high: float | None
    simulated: float | None
    state: State


def judged(metric: str, segment: str, users: int, logged: FloatArray, simulated: float | None) -> Cell:
    """Compare a logged mean with the simulated one.

    Args:
        metric: Name.
        segment: Whose users.
        users: Units behind the mean.
        logged: float64 [users], one value per unit.
        simulated: The simulated mean.

    Returns:
        The cell: passed within 5 % or inside the logged number's own interval, not powered where that interval is
        wider than 20 % to either side.
    """
    known = logged[~np.isnan(logged)]
    if len(known) < 2 or simulated is None or not np.isfinite(simulated):
        return Cell(metric, segment, users, None, None, None, simulated, "missing")
    mean, se = float(known.mean()), float(known.std(ddof=1) / len(known) ** 0.5)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(known) - 1)) * se
    state: State = "failed"
    if mean == 0 or half > POWERED * abs(mean):
        state = "not powered"
    elif abs(simulated - mean) <= max(WITHIN * abs(mean), half):
        state = "passed"
    return Cell(metric, segment, users, mean, mean - half, mean + half, simulated, state)


def backtest(context: Context, fit_days: list[date], test_days: list[date], notify: Notify) -> list[Cell]:
    """Fit on some days and simulate the logging policy on later ones.

    Args:
        context: Pipeline in a lake of its own; missing days are built.
        fit_days: Days that the response model learns from, in order.
        test_days: Days after them; the day after the last must be in the feed, for returning.
        notify: Called with (done, total, what).

    Returns:
        Every metric and depth share in every segment, over all test days together.

    Raises:
        TrainingError: When the response model can not be fitted.
        ConfigError: When the pipeline's window is shorter than the days to fit.
    """
    from simulator.response_fit import fit_response

    # The examples of the fitted days are those of the first tested day's window.
    window = context.pipeline.train.window_days
    if window < len(fit_days):
        raise ConfigError(f"{len(fit_days)} days to fit are more than the window of {window} days that a day builds")
    for done, day in enumerate(test_days):
        notify(done, len(test_days), f"features of {day}")
        for step in ("ingest", "features", "dataset"):
            run_step(context, step, day + timedelta(days=1))
    threshold = _threshold(context, fit_days)
    # Returning on the first test day would be a look at it: the last fitted day has no label.
    data = response_data(context, fit_days, threshold, until=fit_days[-1])
    fit = fit_response(data, response_settings(context), logged_scores(context, [*fit_days, *test_days]))
    if fit.model is None:
        raise TrainingError(f"the response model can not be fitted on {fit_days[0]} to {fit_days[-1]}: {fit.reason}")
    logs, simulated = [], []
    depths: dict[str, list[tuple[IntArray, IntArray]]] = {segment: [] for segment in SEGMENTS}
    for done, day in enumerate(test_days):
        notify(done, len(test_days), f"simulate {day}")
        held = load_heldout(context, day, threshold)
        log = response_data(context, [day], threshold, until=day + timedelta(days=1)).ordered()
        videos = video_arrays(context, held, fit_days)
        sessions = as_logged(session_arrays(context, held, np.arange(held.sessions.num_rows)), held, log, videos)
        ranking = as_production(fit.model, held)
        chosen = context.pipeline.simulator
        settings = RolloutSettings(chosen.seed, ROLLOUTS, chosen.max_slots)
        logs.append(logged_outcomes(log, context.pipeline.feed.skip_below_ms / 1000))
        parts = []
        for g, segment in enumerate(GROUPS):
            mine = np.flatnonzero(sessions.group == g)
            if not len(mine):
                continue
            found = rollout(sessions.select(mine), videos, {"log": ranking}, fit.model, settings)
            parts.append(found.outcomes)
            depth = (_depths_of(log, g), _expanded(found.depths))
            depths[segment].append(depth)
            depths["all"].append(depth)
        simulated.append(pa.concat_tables(parts))
    return _compare(pa.concat_tables(logs), pa.concat_tables(simulated), depths)


def as_logged(sessions: Sessions, held: Heldout, log: ResponseData, videos: Videos) -> Sessions:
    """Sessions whose reached slots offer what the log showed, and nothing else.

    Args:
        sessions: Of every row of ``held.sessions``.
        held: The day.
        log: Its ordered impressions.
        videos: Its videos.

    Returns:
        The sessions; slots behind the logged ones offer what they offered.
    """
    ids, version = held.sessions["session_id"].to_numpy(), held.sessions["version"].to_numpy().astype(np.int64)
    order = np.argsort(ids, kind="stable")
    row = order[np.minimum(np.searchsorted(ids[order], log.session_id), len(ids) - 1)]
    start = log.starts()
    slot = np.arange(len(start)) - np.maximum.accumulate(np.where(start, np.arange(len(start)), 0))
    place = np.searchsorted(held.ids, log.video_id)
    known = (ids[row] == log.session_id) & (held.ids[np.minimum(place, len(held.ids) - 1)] == log.video_id)
    deepest = int(slot[known].max(initial=0)) + 1
    count = sessions.sets.shape[1]
    width = max(deepest + 1, count)
    sets = sessions.sets[:, np.minimum(np.arange(width), count - 1)].copy()
    at, reached = row[known], slot[known]
    sets[at, reached] = -1
    sets[at, reached, 0] = place[known] + version[at] * len(held.ids)
    return replace(sessions, sets=sets)


def as_production(model: ResponseModel, held: Heldout) -> Ranking:
    """The logging policy for slots that the log did not reach: a softmax by Gumbel noise on completed scores."""
    users, ids = held.sessions["user_id"].to_numpy(), held.sessions["session_id"].to_numpy()
    scores = model.evidence.scores

    def ranking(session: IntArray, video: IntArray) -> FloatArray:
        place = video % len(held.ids)
        luck = draws.uniform(0, "backtest choice", ids[session], place)
        noise: FloatArray = -np.log(-np.log(luck))
        if scores is None:
            return noise
        score = scores.score(users[session], held.ids[place])
        return noise + np.where(np.isfinite(score), score, scores.mean)

    return ranking


def _threshold(context: Context, days: list[date]) -> float:
    column = f"user_impressions_{context.pipeline.groups.activity_days}d"
    table = pa.concat_tables([context.data.get("examples", one).table(columns=["tenure_days", column]) for one in days])
    return activity_threshold(table["tenure_days"], table[column], context.pipeline.groups)


def _depths_of(log: ResponseData, group: int) -> IntArray:
    """int64: impressions of every logged session of a group; a session's group is that of its first impression."""
    first = np.flatnonzero(log.starts())
    count = np.diff(np.append(first, len(log.user_id)))
    mine: IntArray = count[log.group[first] == group].astype(np.int64)
    return mine


def _expanded(depths: pa.Table) -> IntArray:
    return np.repeat(depths["impressions"].to_numpy(), depths["rollouts"].to_numpy()).astype(np.int64)


def _compare(logged: pa.Table, simulated: pa.Table, depths: dict[str, list[tuple[IntArray, IntArray]]]) -> list[Cell]:
    cells = []
    for segment in SEGMENTS:
        log, simulation = (
            table if segment == "all" else table.filter(pc.equal(table["group"], GROUPS.index(segment)))
            for table in (logged, simulated)
        )
        for metric in METRICS:
            values, found = metric.value(log), metric.value(simulation)
            found = found[~np.isnan(found)]
            mean = float(found.mean()) if len(found) else None
            cells.append(judged(metric.name, segment, log.num_rows, values, mean))
        if not depths[segment]:
            continue
        was, now = (np.concatenate([pair[i] for pair in depths[segment]]) for i in range(2))
        for low, high in pairwise((*DEPTHS, np.inf)):
            name = f"depth {low}" + (f" to {high - 1:.0f}" if np.isfinite(high) and high > low + 1 else "")
            name += " and more" if not np.isfinite(high) else ""
            inside = ((was >= low) & (was < high)).astype(np.float64)
            cells.append(judged(name, segment, len(was), inside, float(((now >= low) & (now < high)).mean())))
    return cells


def found_of(name: Literal["world", "kuairand"], cells: list[Cell], config: dict[str, Any], proxies: str = "") -> Found:
    """The rung of one feed.

    Args:
        name: Which feed.
        cells: Its cells.
        config: Days and sizes.
        proxies: What must be said of the feed's app time and return.

    Returns:
        Passed when no powered cell failed and at least one is powered.
    """
    failed = [cell for cell in cells if cell.state == "failed"]
    passed = [cell for cell in cells if cell.state == "passed"]
    state: State = "failed" if failed else "passed" if passed else "not powered"
    unpowered = sum(cell.state == "not powered" for cell in cells)
    sentence = f"{name}: {len(passed)} of {len(passed) + len(failed)} powered numbers came back"
    if failed:
        worst = max(failed, key=lambda cell: abs((cell.simulated or 0.0) / (cell.logged or 1.0) - 1))
        off = 100 * ((worst.simulated or 0.0) / (worst.logged or 1.0) - 1)
        sentence += f"; farthest off: {worst.metric} of {worst.segment} users, {off:+.0f} %"
    sentence += f"; {unpowered} not powered. {proxies}".rstrip()
    return Found("V2 backtest", state, sentence, {"feed": name, **config}, [vars(cell) for cell in cells])
