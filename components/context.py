"""What every step is given beside its day: the pipeline, the machine's settings, and the lake."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from components.config import Pipeline, Settings
from components.lake import Lake, Partition


@dataclass(frozen=True)
class StepResult:
    """What a step reports: small enough for an XCom, a log line and a table.

    Attributes:
        step: The step's name.
        day: The day it ran for.
        outputs: Content hash by ``dataset/day`` of the partitions that it wrote or found right.
        facts: Counts and notes worth a log line.
    """

    step: str
    day: date
    outputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The result as plain data."""
        return {"step": self.step, "day": self.day.isoformat(), "outputs": self.outputs, "facts": self.facts}


@dataclass(frozen=True)
class Context:
    """One pipeline on one machine.

    Attributes:
        pipeline: What is computed.
        settings: Where things live.
        run: What identifies this run (run id, try); written beside the content, never into it.
        notify: Called with (done, total, what) while a step works; a terminal shows it as a bar.
    """

    pipeline: Pipeline
    settings: Settings
    run: dict[str, Any] = field(default_factory=dict)
    notify: Callable[[int, int, str], None] = lambda done, total, what: None

    @property
    def data(self) -> Lake:
        """The feed's data: log, users, videos, features; shared by pipelines over the same feed."""
        return Lake.open(self.settings, self.run).scope(self.pipeline.source_id)

    @property
    def runs(self) -> Lake:
        """Models and experiments of this pipeline under exactly this configuration."""
        return self.data.scope(self.pipeline.name, self.pipeline.config_hash)

    def lock(self, dataset: str, day: date) -> Path:
        """Lock file that orders runs of this machine which would make the same partition at the same time."""
        return self.settings.home / "locks" / self.pipeline.source_id / f"{dataset}-{day}.lock"


def inputs_of(*partitions: Partition) -> dict[str, str]:
    """Content hashes of partitions, keyed by ``dataset/day``, as a manifest records them."""
    return {f"{p.manifest.dataset}/{p.manifest.day}": p.content_hash for p in partitions}
