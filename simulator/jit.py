"""Compiled loops: the one place that knows Numba.

A loop that must run a hundred million times is written as a plain Python function over arrays and compiled on first
use. Machine code is kept beside the source (or in the user's cache where that can not be written), so later
processes load it. Compiled functions release the interpreter's lock, so threads can share the cores.

Never ``fastmath``: sums keep their order, and a number does not depend on how the compiler likes to vectorise.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

Given = ParamSpec("Given")
Result = TypeVar("Result")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Compile a function of numbers and arrays when it is first called.

    Args:
        function: Uses numbers, tuples, NumPy arrays and other compiled functions only.

    Returns:
        The same function as machine code; it may be called from Python and from compiled functions.
    """
    return cast(Callable[Given, Result], numba.njit(cache=True, nogil=True)(function))
