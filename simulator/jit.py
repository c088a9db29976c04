"""Compiled loops: the one place that knows Numba.

A loop that must run a hundred million times is written as a plain Python function over arrays and compiled on first
use. Machine code is kept beside the source (or in the user's cache where that can not be written), so later
processes load it. Compiled functions release the interpreter's lock, so threads can share the cores.

Never ``fastmath``: sums keep their order, and a number does not depend on how the compiler likes to vectorise.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _stamp() -> str:
    """Of all files with compiled functions: Numba watches a function's own file, not those of the ones it calls."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        text = path.read_bytes()
        if b"@compiled" in text:
            digest.update(sha256(text).digest())
    return digest.hexdigest()[:16]


_FOLDER = Path(numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__")
numba.config.CACHE_DIR = str(_FOLDER / f"compiled-{_stamp()}")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Compile a function of numbers and arrays when it is first called.

    Args:
        function: Uses numbers, tuples, NumPy arrays and other compiled functions only.

    Returns:
        The same function as machine code; it may be called from Python and from compiled functions.
    """
    return cast(Callable[Given, Result], numba.njit(cache=True, nogil=True)(function))
