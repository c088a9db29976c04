"""AdamW in plain tensor operations.

torch's own optimisers import the whole compiler stack when the first one is built, which costs every training process
seconds and a few hundred megabytes for nothing that is used here; a test holds the two together.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Moments:
    """What AdamW keeps of a parameter's gradients: steps so far, their running mean and mean square."""

    mean: Tensor
    square: Tensor
    steps: int = 0


@dataclass
class AdamW:
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019, algorithm 2.

    Attributes:
        groups: Parameters with the weight decay of each list.
        learning_rate: Step size.
        betas: Decay of the running mean and of the running mean square.
        epsilon: Keeps the division finite.
        state: Moments by parameter; parameters that never had a gradient have none.
    """

    groups: list[tuple[list[nn.Parameter], float]]
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    state: dict[nn.Parameter, Moments] = field(default_factory=dict)

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        with torch.no_grad():
            for parameters, decay in self.groups:
                for parameter in parameters:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, decay)

    def zero_grad(self) -> None:
        """Forget all gradients, so that a parameter that the next batch does not use stays where it is."""
        for parameters, _ in self.groups:
            for parameter in parameters:
                parameter.grad = None

    def _move(self, parameter: nn.Parameter, gradient: Tensor, decay: float) -> None:
        moments = self.state.get(parameter)
        if moments is None:
            moments = Moments(torch.zeros_like(parameter), torch.zeros_like(parameter))
            self.state[parameter] = moments
        moments.steps += 1
        of_mean, of_square = self.betas
        moments.mean.lerp_(gradient, 1.0 - of_mean)
        moments.square.mul_(of_square).addcmul_(gradient, gradient, value=1.0 - of_square)
        unbiased = math.sqrt(1.0 - of_square**moments.steps)
        scale = moments.square.sqrt().div_(unbiased).add_(self.epsilon)
        if decay > 0.0:
            parameter.mul_(1.0 - self.learning_rate * decay)
        parameter.addcdiv_(moments.mean, scale, value=-self.learning_rate / (1.0 - of_mean**moments.steps))
