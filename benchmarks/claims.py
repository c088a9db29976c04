"""What every benchmark and check writes: headline claims, and the rows that they come from."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MEASURED_PACKAGES = (
    *("apache-airflow", "torch", "feast", "great-expectations", "pyarrow", "duckdb", "numpy"),
    *("lightgbm", "torch-rechub"),
)


@dataclass(frozen=True)
class Claim:
    """One headline figure. ``holds`` is None where no target was set."""

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    target: str = ""
    holds: bool | None = None
    how: str = ""


@dataclass(frozen=True)
class Record:
    """The outcome of one benchmark on one machine; nothing but the standard library, so that any machine can write it.

    Attributes:
        machine: Processor, cores, memory.
        versions: Of Python and of the packages that are installed.
        commit: Of the checkout.
        config: Settings that a reader needs to repeat it.
        claims: Headline figures.
        rows: What they come from.
    """

    machine: str
    versions: dict[str, str]
    commit: str
    config: dict[str, Any]
    claims: tuple[Claim, ...]
    rows: tuple[dict[str, Any], ...]

    def json(self) -> str:
        """The record as text, a line for each claim and row."""
        parts = {name: json.dumps(value) for name, value in asdict(self).items()}
        for name in ("claims", "rows"):
            lines = [json.dumps(one) for one in asdict(self)[name]]
            parts[name] = "[\n" + ",\n".join(lines) + "\n]"
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {part}" for name, part in parts.items()) + "\n}\n"


def record(config: dict[str, Any], claims: list[Claim], rows: list[dict[str, Any]]) -> Record:
    """Put a benchmark's figures together with what they were measured on.

    Args:
        config: Settings that a reader needs to repeat it.
        claims: Headline figures.
        rows: What they come from.

    Returns:
        The record.
    """
    versions = {"python": platform.python_version()}
    for name in MEASURED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Record(
        machine=machine(), versions=versions, commit=_commit(), config=config, claims=tuple(claims), rows=tuple(rows)
    )


def publish(result: Record, target: str | None) -> None:
    """Print the claims, and write the record.

    Args:
        result: The record.
        target: File for the JSON, ``-`` for standard output, None for none.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("claim", "value", "interval", "unit", "target", "holds")
    table.columns[0].overflow = "fold"
    for claim in result.claims:
        holds = "" if claim.holds is None else "yes" if claim.holds else "MISSED"
        interval = "" if claim.low is None or claim.high is None else f"[{claim.low:.4g}, {claim.high:.4g}]"
        table.add_row(claim.name, f"{claim.value:.4g}", interval, claim.unit, claim.target, holds)
    console = Console(stderr=target == "-")
    console.print(table)
    # The same words once, however many claims were measured in that way.
    for how in dict.fromkeys(claim.how for claim in result.claims if claim.how):
        console.print(how, style="dim", highlight=False, markup=False)
    if target == "-":
        sys.stdout.write(result.json())
    elif target is not None:
        Path(target).write_text(result.json(), encoding="utf-8")


def machine() -> str:
    """Processor, cores, memory and system of this machine."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or "unknown processor",
    )
    kilobytes = next((int(line.split()[1]) for line in _read("/proc/meminfo").splitlines() if "MemTotal" in line), 0)
    return f"{os.cpu_count()} cores of {model}, {kilobytes / 2**20:.0f} GiB, {platform.system()}"


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=False
    ).stdout
    return found.stdout.strip() + (" with uncommitted changes" if changed else "") or "unknown"
