"""torch.compile around a network, for as long as it trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from components.errors import TrainingError
from components.models.network import Network


@contextmanager
def compiled(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile what the training step calls; scoring and the bundle see the network as it was.

    Args:
        network: A model of the zoo.
        wanted: ``train.compile``.

    Yields:
        Nothing; inside, ``network.heads`` is compiled, for any number of rows, once for each cell.

    Raises:
        TrainingError: When compilation needs a compiler that is not installed.
    """
    if not wanted:
        yield
        return
    from torch import _dynamo
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise TrainingError(
            f"train.compile needs a C++ compiler and none works here ({error}); install one (Debian and Ubuntu: "
            "apt-get install g++), name it in CXX, or set train.compile to false"
        ) from error
    cells = cast(Network, network).grid.cells
    eager = cast(Network, network).heads
    with _dynamo.config.patch(recompile_limit=max(8, 2 * cells)):
        # An attribute of the instance hides the method.
        object.__setattr__(network, "heads", torch.compile(eager, dynamic=True))
        try:
            yield
        finally:
            object.__delattr__(network, "heads")
