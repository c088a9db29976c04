"""The table of faults in docs/faults.md, from the catalogue and from a record of trials."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.validation_faults import trial_of
from benchmarks.validation_trials import RATES, Trial, enough
from components.chaos import FAULTS, Fault
from components.errors import ConfigError

BEGIN, END = "<!-- begin: generated table -->", "<!-- end: generated table -->"
_HEAD = "| fault | changes | what it does, and when it occurs | severity, caught from |"
_NOT_TRIED = ""


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The catalogue with what the gate did, as a table.

    Args:
        rows: Of a record of ``validation_faults``.

    Returns:
        Markdown. A cell names the answer, of several days the weakest; in bold where it had to be caught and was,
        with ``MISSED`` where it had to be and was not.
    """
    found = [trial_of(row) for row in rows if row["kind"] == "trial"]
    sizes = list(dict.fromkeys(one.size for one in found))
    grids = [size for size in sizes if len({one.rate for one in found if one.size == size}) > len(RATES)]
    columns = [(size, rate) for size in grids for rate in RATES] + [(size, None) for size in sizes]
    heads = [f"{size} {rate:.0%}" if rate else f"{size}, from there" for size, rate in columns]
    lines = [f"{_HEAD} {' | '.join([*heads, 'caught by'])} |", "|" + "---|" * (5 + len(columns))]
    for fault in FAULTS:
        own = [one for one in found if one.fault == fault.name]
        cells = [_cell(fault, [one for one in own if one.size == size], rate) for size, rate in columns]
        by = next((one.by for one in own if one.rate >= fault.stated and one.by), ())
        shown = ", ".join(f"`{name}`" for name in _few(fault, own, by))
        about = f"{fault.meaning} *{fault.cause}*"
        stated = f"{fault.severity}, {fault.stated:.0%} of {fault.rate_of}"
        lines.append(f"| `{fault.name}` | {fault.where} | {about} | {stated} | {' | '.join([*cells, shown])} |")
    return "\n".join(lines)


def write(page: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the table between the page's marks.

    Args:
        page: A Markdown file with both marks.
        rows: Of a record.

    Raises:
        ConfigError: When the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{page} has no place for the table: {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}", encoding="utf-8")


def _cell(fault: Fault, trials: Sequence[Trial], rate: float | None) -> str:
    """The weakest answer at one rate, or at every rate from the stated one on."""
    here = [one for one in trials if (one.rate >= fault.stated if rate is None else one.rate == rate)]
    if not here:
        return _NOT_TRIED
    order = ("nothing", "warned", "refused", "stopped")
    weakest = min(here, key=lambda one: order.index(one.answer))
    if weakest.rate < fault.stated:
        return weakest.answer
    if all(enough(fault, one.answer) for one in here):
        return f"**{weakest.answer}**"
    return f"{weakest.answer} MISSED"


def _few(fault: Fault, trials: Sequence[Trial], by: Sequence[str]) -> list[str]:
    """Two names at most, without the limits' categories."""
    plain = list(dict.fromkeys(name.split("[")[0] for name in by))
    return plain[:2] if trials else []


def main() -> None:
    """``python -m benchmarks.validation_table RECORD PAGE``: write a page's table from a record."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    write(given.page, json.loads(given.record.read_text(encoding="utf-8"))["rows"])


if __name__ == "__main__":
    main()
