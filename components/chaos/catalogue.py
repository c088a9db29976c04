"""The catalogue: every fault that the project can plant, by name."""

from components.chaos.entries_beside import BESIDE, FILES, SNAPSHOTS
from components.chaos.entries_labels import LABELS, POLICY
from components.chaos.entries_log import IDENTITY, ROWS, TIMES
from components.chaos.fault import Fault
from components.errors import ConfigError

FAULTS: tuple[Fault, ...] = (*TIMES, *ROWS, *IDENTITY, *LABELS, *POLICY, *BESIDE, *SNAPSHOTS, *FILES)
BY_NAME = {fault.name: fault for fault in FAULTS}


def fault_named(name: str) -> Fault:
    """A fault of the catalogue.

    Args:
        name: Its name.

    Returns:
        The fault.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in BY_NAME:
        raise ConfigError(f"no fault {name!r}; 'mfh chaos list' shows all {len(FAULTS)}: {', '.join(BY_NAME)}")
    return BY_NAME[name]
