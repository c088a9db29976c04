"""What the catalogue says of a fault."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Where = Literal["log", "users", "videos", "requests", "user_features", "video_features", "file"]
Severity = Literal["critical", "warning", "harmless"]

TABLES: tuple[Where, ...] = ("log", "users", "videos", "requests")
SNAPSHOTS: tuple[Where, ...] = ("user_features", "video_features")


@dataclass(frozen=True)
class Fault:
    """One way in which a day goes wrong.

    Attributes:
        name: What ``mfh chaos data --fault`` calls it.
        where: The table that it changes; ``file`` is the log's file as bytes.
        plant: What plants it; the first sentence of its docstring says what a rate does.
        cause: What happens in production when it occurs.
        severity: A critical fault must be kept from everything downstream: the day fails, or every bad row is
            refused. Of a warning a person must be told. A harmless one must not stop the day.
        rate_of: What the rate is a share of.
        stated: The lowest rate at which it must be caught; at every higher one it must be caught as well.
        checks: Patterns of ``fnmatch`` over the names of the checks that are meant to catch it; a reason of refusal
            is ``refused.<reason>``, a feed that can not be read is ``source``.
        needs: Columns as ``table.column`` that a feed must deliver, or tables; without them it can't be planted.
        yesterday: Whether it needs the day before.
        csv: Whether it is a fault of text files.
    """

    name: str
    where: Where
    plant: Callable[..., Any]
    cause: str
    severity: Severity
    rate_of: str
    stated: float
    checks: tuple[str, ...]
    needs: tuple[str, ...] = ()
    yesterday: bool = False
    csv: bool = False

    @property
    def meaning(self) -> str:
        """What planting it does, in a sentence or two."""
        text = inspect.getdoc(self.plant) or ""
        return " ".join(text.split("\n\n")[0].split())
