"""The record of ``mfh bench quality`` as Markdown: what ``benchmarks/results`` keeps beside the numbers."""

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.claims import Record

GROUPS = ("all", "new", "low", "high")
# Metrics that a table is made of, and how their heads read.
METRICS = {"auc": "AUC", "gauc": "GAUC", "mse": "squared error, less is better"}

Values = dict[tuple[str, str, str, str], list[float]]


def markdown(result: Record) -> str:
    """Tables of every task: mean ± sd over seeds, best mean in bold, and MFH's differences with their intervals.

    Args:
        result: The record.

    Returns:
        The text of a file.
    """
    config = result.config
    days = ", ".join(
        f"{name} {config[name].replace(':', ' to ')}" for name in ("train", "valid", "test") if name in config
    )
    rows = ", ".join(f"{count:,} {name}" for name, count in config["rows"].items())
    counted = f" Evaluation {config['evaluation']} on these test days." if "evaluation" in config else ""
    lines = [
        f"# How well every model ranks: {config['data']}",
        "",
        f"{days}; {rows} rows. Mean ± standard deviation over {config['seeds']} seeds.{counted}",
        f"Measured on {result.machine}; torch {result.versions['torch']}, commit {result.commit[:12]}.",
        "",
        "Differences are MFH minus the other model, with a 95 % interval over users and seeds (paired bootstrap); bold "
        "where the whole interval lies on the side of MFH, italic where it lies on the other.",
    ]
    values, differences = _values(result.rows), [row for row in result.rows if "seed" not in row]
    for task, metric in dict.fromkeys(key[:2] for key in values):
        if metric in METRICS:
            lines += ["", f"## {task}: {METRICS[metric]}", "", *_task(task, metric, values, differences)]
    return "\n".join(lines) + "\n"


def _values(rows: Iterable[dict[str, Any]]) -> Values:
    found: Values = {}
    for row in rows:
        if "seed" in row and row["value"] is not None:
            found.setdefault((row["task"], row["metric"], row["model"], row["group"]), []).append(row["value"])
    return found


def _task(task: str, metric: str, values: Values, differences: list[dict[str, Any]]) -> list[str]:
    lines = [f"| model | {' | '.join(GROUPS)} |", "|---|---|---|---|---|"]
    models = list(dict.fromkeys(key[2] for key in values if key[:2] == (task, metric)))
    means = {
        group: {
            m: statistics.mean(values[task, metric, m, group]) for m in models if (task, metric, m, group) in values
        }
        for group in GROUPS
    }
    pick = min if metric == "mse" else max
    best = {group: pick(found.values()) for group, found in means.items() if found}
    for model in models:
        cells = []
        for group in GROUPS:
            given = values.get((task, metric, model, group), [])
            shown = _mean_sd(given)
            cells.append(f"**{shown}**" if given and statistics.mean(given) == best[group] else shown)
        lines.append(f"| {model} | {' | '.join(cells)} |")
    for name in dict.fromkeys(row["model"] for row in differences):
        found = {
            row["group"]: row
            for row in differences
            if (row["model"], row["task"], row["metric"]) == (name, task, metric)
        }
        cells = [_difference(found[group], metric) for group in GROUPS]
        lines.append(f"| {name.replace('_minus_', ' − ')} | {' | '.join(cells)} |")
    return lines


def _mean_sd(values: list[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def _difference(row: dict[str, Any], metric: str) -> str:
    if row["value"] is None:
        return "–"
    shown = f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]".replace("-", "−")
    better = row["high"] < 0 if metric == "mse" else row["low"] > 0
    worse = row["low"] > 0 if metric == "mse" else row["high"] < 0
    return f"**{shown}**" if better else f"*{shown}*" if worse else shown
