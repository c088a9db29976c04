"""V5: do our estimators equal a public library's on its own data?

A folder holds one ``random_*.parquet`` and one ``bts_*.parquet`` in the layout of the Open Bandit Dataset (Saito et
al. 2020): item_id from 0, position, click, propensity_score, and one ``user-item_affinity_<item>`` column per item. A
reference JSON holds what obp answered: a section per evaluation ("<log> log -> <policy>") with a number per estimator,
and facts of the logs. Every number in it is computed anew from the files and compared.

Definitions, as the reference states them:

- policy "item frequency per position in the <other> file": pi(a|position) = its share of a among its rounds there;
- policy "uniform": 1 / items, items being those that the affinity columns and the ids of both logs tell;
- reward model: per item the mean click in the log that is evaluated, pooled over positions, unsmoothed, in-sample. An
  item that the log never shows has no mean; it counts as 0 clicks, and the record names it.

The files know no users, so every round is its own cluster; intervals are not part of the comparison.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.errors import SourceError
from simulator.offpolicy.estimators import Estimator, Limits, evaluate, refusal, weights_of
from simulator.offpolicy.rounds import FloatArray, IntArray, Rounds
from simulator.offpolicy.sums import ClusterSums, Shrinkage

TOLERANCE = 1e-9

LOGS = ("random", "bts")
_COLUMNS = ("item_id", "position", "click", "propensity_score")
_AFFINITY = "user-item_affinity_"
_CONFIDENCE = 0.95
# Whatever can be computed is compared: how far a number carries is not the question here.
_NO_LIMITS = Limits(effective=0.0)

_ESTIMATORS: dict[str, Estimator] = {
    "ips": "ips",
    "snips": "snips",
    "dm": "dm",
    "dr": "dr",
    "sndr": "sndr",
    "switchdr": "switch_dr",
    "dros": "dros",
}


@dataclass(frozen=True)
class Comparison:
    """One number of the reference.

    Attributes:
        section: Where it stands in the reference.
        number: Its name there.
        ours: What we compute, None when we can not.
        theirs: What the reference says, None when it is no number.
        difference: Relative, |ours - theirs| / |theirs|; absolute where theirs is 0.
        reason: Why there is no difference.
    """

    section: str
    number: str
    ours: float | None
    theirs: float | None
    difference: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ReferenceCheck:
    """The outcome of V5.

    Attributes:
        passed: Every number was compared and none differs by more than the tolerance.
        tolerance: Relative.
        max_difference: Largest relative difference of those that could be compared, None without any.
        comparisons: All numbers.
        notes: What a reader must know of the files.
        sentence: The outcome in words.
    """

    passed: bool
    tolerance: float
    max_difference: float | None
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class BanditLog:
    """One policy's log of N rounds.

    Attributes:
        name: ``random`` or ``bts``.
        path: Its file.
        item: int64 [N], from 0.
        position: int64 [N].
        click: float64 [N].
        propensity: float64 [N].
        affinities: Items that have an affinity column.
    """

    name: str
    path: Path
    item: IntArray
    position: IntArray
    click: FloatArray
    propensity: FloatArray
    affinities: int


def check_reference(data: Path, reference: Path) -> ReferenceCheck:
    """Compute every number of a reference anew from its files.

    Args:
        data: Folder with one ``random_*.parquet`` and one ``bts_*.parquet``.
        reference: JSON file of what the library answered on them.

    Returns:
        The comparison; numbers that can not be computed or are not known fail it with a reason.

    Raises:
        SourceError: When the folder, a file or the reference can not be read as such.
    """
    logs = read_logs(data)
    sections = _read_reference(reference)
    items = _items(logs)
    comparisons = tuple(one for name, section in sections for one in _section(logs, items, name, section))
    if not comparisons:
        raise SourceError(f"{reference} holds no number to compare; it must have sections such as 'random log -> …'")
    differences = [one.difference for one in comparisons if one.difference is not None]
    failed = [one for one in comparisons if one.difference is None or not one.difference <= TOLERANCE]
    largest = max(differences, default=None)
    if failed:
        worst = max(failed, key=lambda one: math.inf if one.difference is None else one.difference)
        what = worst.reason or f"{worst.ours:.12g} here, {worst.theirs:.12g} there"
        sentence = (
            f"{len(failed)} of {len(comparisons)} numbers differ from the reference by more than {TOLERANCE:g}; "
            f"the first of the worst is {worst.number} of '{worst.section}': {what}"
        )
    else:
        sentence = (
            f"all {len(comparisons)} numbers equal the reference within {TOLERANCE:g}, at most {largest:.1e} apart"
        )
    return ReferenceCheck(not failed, TOLERANCE, largest, comparisons, _notes(logs, items), sentence)


def read_logs(data: Path) -> dict[str, BanditLog]:
    """Both logs of a folder.

    Args:
        data: The folder.

    Returns:
        ``random`` and ``bts``.

    Raises:
        SourceError: When the folder or a file is missing, damaged, empty or lacks a column.
    """
    if not data.is_dir():
        raise SourceError(f"{data} is not a folder; name the folder of random_*.parquet and bts_*.parquet")
    found = {}
    for name in LOGS:
        files = sorted(data.glob(f"{name}_*.parquet"))
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise SourceError(f"{data} must hold one {name}_*.parquet, found {names}; leave exactly one there")
        found[name] = _read_log(name, files[0])
    return found


def _read_log(name: str, path: Path) -> BanditLog:
    try:
        columns = pq.read_schema(path).names
        if missing := [one for one in _COLUMNS if one not in columns]:
            raise SourceError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(columns[:12])}")
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path} is no readable Parquet file: {error}; copy it again") from error
    if table.num_rows == 0:
        raise SourceError(f"{path} holds no round; copy it again")
    whole = {one: _numbers(path, table, one) for one in _COLUMNS}
    for one in ("item_id", "position"):
        values = whole[one]
        if not (np.isfinite(values) & (values == np.floor(values)) & (values >= 0)).all():
            raise SourceError(f"{path}: {one} must be whole numbers from 0 in every row; mend or copy the file again")
    if not np.isfinite(whole["click"]).all():
        raise SourceError(f"{path}: click is missing in some rows; mend or copy the file again")
    return BanditLog(
        name=name,
        path=path,
        item=whole["item_id"].astype(np.int64),
        position=whole["position"].astype(np.int64),
        click=whole["click"],
        propensity=whole["propensity_score"],
        affinities=sum(one.startswith(_AFFINITY) for one in columns),
    )


def _numbers(path: Path, table: pa.Table, name: str) -> FloatArray:
    try:
        cast = pc.cast(table[name], pa.float64())
    except pa.ArrowException as error:
        raise SourceError(f"{path}: {name} is {table[name].type}, not a number; mend or copy the file again") from error
    values: FloatArray = cast.to_numpy(zero_copy_only=False)
    return values


def _read_reference(path: Path) -> list[tuple[str, Any]]:
    """Sections of the reference that hold numbers, in its order; sentences are left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the reference {path} can not be read: {error}") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"the reference {path} is no JSON: {error}; copy it again") from error
    if not isinstance(content, dict):
        raise SourceError(f"the reference {path} must be a JSON object, it is a {type(content).__name__}")
    return [(name, section) for name, section in content.items() if not isinstance(section, str)]


def _items(logs: dict[str, BanditLog]) -> int:
    """Items of the page: as many as have an affinity column, or as the ids tell when these are more."""
    return max(max(int(log.item.max()) + 1, log.affinities) for log in logs.values())


def _notes(logs: dict[str, BanditLog], items: int) -> tuple[str, ...]:
    notes = []
    for log in logs.values():
        never = np.flatnonzero(np.bincount(log.item, minlength=items) == 0)
        if len(never):
            shown = ", ".join(map(str, never[:10])) + (", …" if len(never) > 10 else "")
            notes.append(
                f"{log.path.name} never shows {len(never)} of {items} items ({shown}): their value counts as 0"
            )
    return tuple(notes)


def _section(logs: dict[str, BanditLog], items: int, name: str, section: Any) -> Iterator[Comparison]:
    if "->" in name and isinstance(section, dict):
        yield from _evaluation(logs, items, name, section)
    elif isinstance(section, dict):
        for log, theirs in section.items():
            ours = float(logs[log].click.mean()) if "click rate" in name and log in logs else None
            yield _compared(name, log, ours, theirs, "this number is not known here")
    else:
        known = {"items": items, "positions": len(np.union1d(*(log.position for log in logs.values())))}
        ours = known.get(name)
        yield _compared(name, name, None if ours is None else float(ours), section, "this number is not known here")


def _evaluation(logs: dict[str, BanditLog], items: int, name: str, section: dict[str, Any]) -> Iterator[Comparison]:
    """Every number of one evaluation: a log, and the policy that is evaluated on it."""
    left, right = (part.strip().lower() for part in name.split("->", 1))
    log = next((logs[one] for one in LOGS if left.startswith(one)), None)
    if log is None or not ("uniform" in right or "frequency" in right):
        why = "only a uniform policy or an item frequency on the random or bts log is known here"
        for number, theirs in section.items():
            yield _compared(name, number, None, theirs, why)
        return
    places, column = np.unique(log.position, return_inverse=True)
    if "uniform" in right:
        policy, column = np.full((items, 1), 1 / items), np.zeros_like(column)
    else:
        policy = _frequency(logs["bts" if log.name == "random" else "random"], items, places)
    rounds = _rounds(log, items, policy, column)
    for number, theirs in section.items():
        ours, why = _number(rounds, number)
        yield _compared(name, number, ours, theirs, why)


def _frequency(log: BanditLog, items: int, places: IntArray) -> FloatArray:
    """float64 [items, places]: share of each item among the log's rounds at a place; NaN where it has none."""
    column = np.searchsorted(places, log.position)
    known = (column < len(places)) & (places[np.minimum(column, len(places) - 1)] == log.position)
    count = np.bincount(log.item[known] * len(places) + column[known], minlength=items * len(places))
    count = count.reshape(items, len(places)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share: FloatArray = count / count.sum(axis=0)
    return share


def _rounds(log: BanditLog, items: int, policy: FloatArray, column: NDArray[np.intp]) -> Rounds:
    """The log under a policy [items, C]; both depend on few things, so the expectation is one number per column."""
    shown = np.bincount(log.item, minlength=items)
    mean = np.bincount(log.item, log.click, minlength=items) / np.maximum(shown, 1)
    return Rounds(
        cluster=np.arange(len(log.item), dtype=np.int64),
        reward=log.click,
        propensity=log.propensity,
        target=policy[log.item, column],
        value=mean[log.item],
        expected=(mean @ policy)[column],
        position=log.position.astype(np.int32),
    )


def _number(rounds: Rounds, name: str) -> tuple[float | None, str]:
    """Our value of a number of the reference, or why there is none."""
    kind = re.sub(r"[\s_-]", "", name.split(",", maxsplit=1)[0]).lower()
    given = re.search(r"lambda\s*=\s*([\d.eE+-]+|inf)", name)
    if kind in _ESTIMATORS:
        constant = float(given[1]) if given else math.inf
        sums = ClusterSums.of(rounds, Shrinkage(switch=constant, dros=constant))
        found = evaluate(sums, _NO_LIMITS, _CONFIDENCE).values[_ESTIMATORS[kind]]
        return found.value, found.reason or ""
    sums = ClusterSums.of(rounds, Shrinkage())
    weights = weights_of(sums)
    known = {
        "weightmean": weights.mean,
        "weightmax": weights.largest,
        "effectivesamplesize": weights.effective_rounds,
    }
    if kind not in known:
        return None, "this number is not known here"
    return known[kind], refusal(sums, "ips", _NO_LIMITS) or ""


def _compared(section: str, number: str, ours: float | None, theirs: Any, why: str) -> Comparison:
    if isinstance(theirs, bool) or not isinstance(theirs, int | float) or not math.isfinite(theirs):
        return Comparison(section, number, ours, None, None, f"the reference holds {theirs!r}, not a number")
    if ours is None:
        return Comparison(section, number, None, float(theirs), None, why)
    apart = abs(ours - theirs)
    return Comparison(section, number, ours, float(theirs), apart / abs(theirs) if theirs else apart)
