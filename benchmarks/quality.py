"""How well every model ranks: per task and user group, over seeds, with paired intervals of the differences.

Claims: ``quality.<task>.<group>.mfh_minus_<reference>``, the difference of AUC (completion: of MSE, where less is
better), mean over seeds, with an interval over users and seeds (``benchmarks.paired``). A claim holds when its whole
interval lies on the side of MFH. Every evaluation on test days is counted in a log.
"""

import json
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import paired
from benchmarks.claims import Claim, Record, record
from benchmarks.quality_data import WORLD, Days, Examples, Notify, load
from benchmarks.quality_models import Outcome, fit, require_models
from components.inputs import GROUPS
from components.models import metrics
from components.models.settings import Task

EVALUATIONS = Path(__file__).resolve().parent / "results" / "test_evaluations.jsonl"
MODELS = (
    *("single", "shared_bottom", "cross_stitch", "mmoe", "cgc", "ple", "flat", "hmtl_behaviour", "hmtl_group"),
    *("mfh", "mfh_equal", "biasnet", "mtnas", "lightgbm", "rechub_mmoe", "rechub_ple"),
)
OURS = "mfh"
REFERENCES = ("ple", "flat", "lightgbm", "rechub_mmoe", "rechub_ple")
ALL = "all"

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]

_VALUES = {"auc": metrics.auc, "logloss": metrics.logloss, "mse": metrics.mse}
_RESAMPLED: dict[str, Callable[[Floats, Floats, NDArray[np.int64], paired.Counts], Floats]] = {
    "auc": paired.auc,
    "gauc": paired.gauc,
    "logloss": paired.logloss,
    "mse": paired.mse,
}


def run(
    data: str,
    train: str,
    valid: str,
    test: str | None,
    models: tuple[str, ...] = MODELS,
    seeds: int = 5,
    *,
    cache: Path | None = None,
    resamples: int = 1_000,
    workers: int = 1,
    evaluations: Path = EVALUATIONS,
    notify: Notify = lambda done, total, what: None,
) -> Record:
    """Train every model with every seed and compare them.

    Args:
        data: ``world``, the folder of a KuaiRand edition, or a pipeline file.
        train: Training days ``A:B``, both included.
        valid: Validation days.
        test: Test days; None compares on the validation days and counts as no evaluation.
        models: Names of ``benchmarks.quality_models``.
        seeds: Seeds 1 to this.
        cache: Folder that keeps the examples.
        resamples: Of the paired bootstrap.
        workers: Models that are trained side by side, each in a process of its own.
        evaluations: The log of evaluations on test days.
        notify: Called with (done, total, what).

    Returns:
        Claims, and rows per model, seed, task, group and metric, then one per difference.

    Raises:
        ConfigError: When a model is unknown, or the ranges overlap.
        WindowError: When the source lacks a day.
    """
    examples = load(data, Days.parse(train, valid, test), cache, notify)
    require_models(models, examples.pipeline)
    outcomes = _fit_all(examples, models, seeds, workers, notify)
    rows, differences = _measure(examples, outcomes), _differences(examples, outcomes, resamples)
    config: dict[str, Any] = {
        "data": data if data == WORLD else Path(data).name,
        **{name: f"{first}:{last}" for name, (first, last) in examples.days.ranges.items()},
        "models": list(models),
        "seeds": seeds,
        "resamples": resamples,
        "tasks": [asdict(task) for task in examples.pipeline.tasks],
        "train_settings": asdict(examples.pipeline.train),
        "sizes": asdict(examples.pipeline.sizes),
        "activity_threshold": examples.threshold,
        "rows": {name: getattr(examples, name).num_rows for name in examples.days.ranges},
        "seconds": {name: round(sum(o.seconds for o in outcomes if o.model == name), 1) for name in models},
        "facts": {name: next(o.facts for o in outcomes if o.model == name) for name in models},
    }
    if test is not None:
        config["evaluation"] = 1 + len(earlier_evaluations(evaluations, config))
    result = record(config, _claims(differences, seeds, "valid" if test is None else "test"), rows + differences)
    if test is not None:
        log_evaluation(evaluations, result)
    return result


def earlier_evaluations(log: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The logged evaluations of a source on the same test days.

    Args:
        log: The log, one JSON record a line; missing before the first.
        config: Of a record.

    Returns:
        Their records, oldest first.
    """
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    earlier: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [one for one in earlier if (one["data"], one["test"]) == (config["data"], config["test"])]


def log_evaluation(log: Path, result: Record) -> None:
    """Write an evaluation on test days down, so that peeking at them is visible.

    Args:
        log: The log; made where it is missing.
        result: Its configuration and number go into the log.
    """
    kept = ("evaluation", "data", "train", "valid", "test", "models", "seeds", "train_settings", "sizes", "tasks")
    entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "commit": result.commit}
    entry |= {name: result.config[name] for name in kept}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def show(result: Record, console: Console) -> None:
    """Print one table per task: mean ± sd over seeds of every model, and the differences.

    Args:
        result: What :func:`run` returned.
        console: Where to.
    """
    values: dict[tuple[str, ...], list[float | None]] = {}
    differences: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in result.rows:
        key = tuple(row[name] for name in ("task", "metric", "model", "group"))
        if "seed" in row:
            values.setdefault(key, []).append(row["value"])
        else:
            differences[key] = row
    judged = "test" if "test" in result.config else "validation"
    groups = (ALL, *GROUPS)
    for task, metric in dict.fromkeys(key[:2] for key in values):
        table = Table("model", *groups, title=f"{task}: {metric} on the {judged} days")
        for model in dict.fromkeys(key[2] for key in values):
            table.add_row(model, *(_mean_sd(values[task, metric, model, group]) for group in groups))
        for model in dict.fromkeys(key[2] for key in differences):
            shown = (_interval(differences[task, metric, model, group]) for group in groups)
            table.add_row(model.replace("_", " "), *shown, style="italic")
        console.print(table)


def _mean_sd(values: list[float | None]) -> str:
    given = [value for value in values if value is not None]
    if not given:
        return "-"
    return f"{statistics.mean(given):.4f}" + (f" ± {statistics.stdev(given):.4f}" if len(given) > 1 else "")


def _interval(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    return f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


_shared: list[Examples] = []


def _receive(examples: Examples) -> None:
    """Keep the examples in a worker: they are sent once, not with every model."""
    _shared[:] = [examples]


def _fit_shared(name: str, seed: int) -> Outcome:
    return fit(name, seed, _shared[0])


def _fit_all(examples: Examples, models: tuple[str, ...], seeds: int, workers: int, notify: Notify) -> list[Outcome]:
    jobs = [(name, seed) for seed in range(1, seeds + 1) for name in models]
    if workers == 1:
        found = []
        for done, (name, seed) in enumerate(jobs):
            notify(done, len(jobs), f"train {name}, seed {seed}")
            found.append(fit(name, seed, examples))
        notify(len(jobs), len(jobs), "trained")
        return found
    outcomes: dict[tuple[str, int], Outcome] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), _receive, (examples,)) as pool:
        waiting = {pool.submit(_fit_shared, *job): job for job in jobs}
        for future in as_completed(waiting):
            outcomes[waiting[future]] = future.result()
            notify(len(outcomes), len(jobs), "trained {}, seed {}".format(*waiting[future]))
    return [outcomes[job] for job in jobs]


def _slices(examples: Examples) -> Iterator[tuple[int, Task, str, NDArray[np.bool_], Floats]]:
    """Every task and group of the judged rows: index, task, group, its labelled rows [N], all labels [N]."""
    table = examples.judged
    group = table["group"].to_numpy()
    for at, task in enumerate(examples.pipeline.tasks):
        label = pc.cast(table[task.name], pa.float64()).to_numpy()
        for name in (ALL, *GROUPS):
            member = np.full(len(group), True) if name == ALL else group == GROUPS.index(name)
            yield at, task, name, member & ~np.isnan(label), label


def _measured(task: Task) -> tuple[str, ...]:
    return ("mse",) if task.loss == "mse" else ("auc", "gauc", "logloss")


def _measure(examples: Examples, outcomes: list[Outcome]) -> Rows:
    rows: Rows = []
    user = examples.judged["user_id"].to_numpy()
    for at, task, group, inside, label in _slices(examples):
        for outcome in outcomes:
            key = {"model": outcome.model, "seed": outcome.seed, "task": task.name, "group": group}
            for name in _measured(task):
                given = (label[inside], outcome.judged[inside, at])
                found = metrics.gauc(*given, user[inside]) if name == "gauc" else _VALUES[name](*given)
                rows.append(key | {"metric": name} | asdict(found))
    return rows


def _differences(examples: Examples, outcomes: list[Outcome], resamples: int) -> Rows:
    by_model: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_model.setdefault(outcome.model, []).append(outcome)
    references = [name for name in REFERENCES if name in by_model]
    if OURS not in by_model or not references:
        return []
    ids, user = np.unique(examples.judged["user_id"].to_numpy(), return_inverse=True)
    seeds = len(by_model[OURS])
    drawn = paired.draw(len(ids), seeds, resamples, np.random.default_rng(0))
    # The first row stands for the data itself.
    counts = np.vstack([np.ones((1, len(ids)), np.int32), drawn.users])
    rows: Rows = []
    for at, task, group, inside, label in _slices(examples):
        for metric in _measured(task):
            found = {
                name: np.stack(
                    [
                        _RESAMPLED[metric](label[inside], o.judged[inside, at].astype(np.float64), user[inside], counts)
                        for o in by_model[name]
                    ],
                    axis=1,
                )
                for name in (OURS, *references)
            }
            for name in references:
                values = (found[OURS][0], found[name][0])
                interval = paired.difference(found[OURS][1:], found[name][1:], values, drawn.seeds)
                key = {"model": f"{OURS}_minus_{name}", "task": task.name, "group": group, "metric": metric}
                rows.append(key | asdict(interval))
    return rows


def _claims(differences: Rows, seeds: int, judged_on: str) -> list[Claim]:
    claims = []
    for row in differences:
        if row["metric"] not in ("auc", "mse") or row["value"] is None:
            continue
        less = row["metric"] == "mse"
        claims.append(
            Claim(
                name=f"quality.{row['task']}.{row['group']}.{row['model']}",
                value=row["value"],
                unit=row["metric"].upper(),
                low=row["low"],
                high=row["high"],
                target="< 0" if less else "> 0",
                holds=row["high"] < 0 if less else row["low"] > 0,
                how=f"mean of {seeds} seeds on the {judged_on} days; 95 % interval over users and seeds",
            )
        )
    return claims
