"""Faults that a day's data can have, and what plants them: the opposite of validation, to show what it catches.

- ``catalogue`` lists every fault with what happens in production when it occurs, how bad it is, the rate at which it
  must be caught, and the checks that should catch it.
- ``times``, ``rows``, ``identity``, ``labels``, ``policy``, ``beside``, ``snapshots`` and ``raw`` hold the faults: pure
  functions of tables (or bytes), a rate and a generator.
- ``planting`` plants one by a seed; ``folder`` writes a feed with a planted day, for people.

No step imports this package: a day is broken only by who asks for it.
"""

from components.chaos.catalogue import BY_NAME, FAULTS, fault_named
from components.chaos.fault import Fault
from components.chaos.planting import plant, plant_bytes, plant_snapshot, unmet
from components.chaos.scene import Scene

__all__ = ["BY_NAME", "FAULTS", "Fault", "Scene", "fault_named", "plant", "plant_bytes", "plant_snapshot", "unmet"]
