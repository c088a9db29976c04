"""Rung V5: our off-policy estimators against a public library's numbers on public logs."""

from dataclasses import asdict
from pathlib import Path

from components.checks.rung import Found, State
from simulator.offpolicy.open_bandit import check_reference as compare


def check_reference(data: Path, reference: Path) -> Found:
    """Compute every number of a reference anew.

    Args:
        data: Folder with one ``random_*.parquet`` and one ``bts_*.parquet`` of the Open Bandit layout.
        reference: JSON file of what the library answered on them.

    Returns:
        The rung.

    Raises:
        SourceError: When a file can not be read as such.
    """
    found = compare(data, reference)
    rows = [asdict(one) for one in found.comparisons]
    state: State = "passed" if found.passed else "failed"
    config = {"data": data.name, "reference": reference.name}
    return Found("V5 reference", state, found.sentence, config, rows, {"max_difference": found.max_difference})
