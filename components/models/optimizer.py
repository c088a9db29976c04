"""AdamW for networks, and for embedding tables AdamW or its kin that move only the rows of a batch.

torch's kernel is called directly: its optimizer classes import the whole compiler stack when the first one is built,
which costs every training process seconds for nothing that is used here; tests hold the two together.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from components.models.encoder import Encoder, Touched
from components.models.losses import MultiTaskLoss
from components.models.settings import TrainSettings

BETAS = (0.9, 0.999)
EPSILON = 1e-8

# Adagrad's steps shrink with every gradient that a row has seen, so that its first ones can be longer than AdamW's.
ROWWISE_FACTOR = 10.0

Rule = Literal["dense", "lazy", "rowwise"]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, algorithm 2) for a few parameters.

    A parameter without a gradient keeps its value, its moments and its number of steps.

    Args:
        parameters: What moves.
        decay: Weight decay of each.
        learning_rate: Step size.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float, learning_rate: float) -> None:
        self.parameters, self.decay, self.learning_rate = parameters, decay, learning_rate
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps = [torch.zeros((), device=parameter.device) for parameter in parameters]

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [at for at, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if not moved:
            return
        steps = [self.steps[at] for at in moved]
        torch._foreach_add_(steps, 1.0)
        torch._fused_adamw_(
            [self.parameters[at] for at in moved],
            [gradient for at in moved if (gradient := self.parameters[at].grad) is not None],
            [self.means[at] for at in moved],
            [self.squares[at] for at in moved],
            [],
            steps,
            lr=self.learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """What must be kept to go on exactly: the tensors themselves."""
        return {"mean": self.means, "square": self.squares, "steps": self.steps}


class RowOptimizer:
    """Moves the rows of tables that a batch read, and nothing else.

    ``lazy`` is AdamW without decay whose moments change only with a row's gradients (torch's SparseAdam); ``rowwise``
    is Adagrad (Duchi, Hazan and Singer, JMLR 2011) with one accumulator per row, the mean of its squared gradients.

    Args:
        tables: The tables, [R, w] each.
        rule: Which of the two.
        learning_rate: Step size.
    """

    def __init__(self, tables: list[nn.Parameter], rule: Rule, learning_rate: float) -> None:
        self.rule, self.learning_rate = rule, learning_rate
        self.places = {table: at for at, table in enumerate(tables)}
        rowwise = rule == "rowwise"
        self.means = [] if rowwise else [torch.zeros_like(table) for table in tables]
        self.squares = [torch.zeros_like(table[:, 0] if rowwise else table) for table in tables]
        self.steps = [torch.zeros((), device=table.device) for table in tables]

    def step(self, touched: Iterable[Touched]) -> None:
        """Move the touched rows."""
        for one in touched:
            at = self.places[one.table]
            self.steps[at] += 1
            with torch.no_grad():
                change = self._rowwise(at, one) if self.rule == "rowwise" else self._lazy(at, one)
                one.table.index_add_(0, one.rows, change)

    def _rowwise(self, at: int, one: Touched) -> Tensor:
        total = self.squares[at][one.rows] + one.gradient.square().mean(1)
        self.squares[at][one.rows] = total
        return one.gradient * (-ROWWISE_FACTOR * self.learning_rate / (total.sqrt() + EPSILON)).unsqueeze(1)

    def _lazy(self, at: int, one: Touched) -> Tensor:
        mean = self.means[at][one.rows].lerp_(one.gradient, 1.0 - BETAS[0])
        square = self.squares[at][one.rows].lerp_(one.gradient.square(), 1.0 - BETAS[1])
        self.means[at][one.rows], self.squares[at][one.rows] = mean, square
        steps = self.steps[at]
        scale = (square / (1.0 - BETAS[1] ** steps)).sqrt_().add_(EPSILON)
        return mean.div_(scale).mul_(-self.learning_rate / (1.0 - BETAS[0] ** steps))

    def state(self) -> dict[str, list[Tensor]]:
        """What must be kept to go on exactly: the tensors themselves."""
        return {"mean": self.means, "square": self.squares, "steps": self.steps}


class Optimizer:
    """All that moves in a training: the network with weight decay, the loss's own weights and the tables without.

    Decay would pull an embedding row towards zero in every step in which its id is not seen: popularity in disguise.
    ``embedding_decay`` is an L2 penalty on the rows that a batch reads instead.

    Args:
        network: The network's parameters.
        encoder: Its parameters are the tables.
        loss: Its parameters are the learned weights of tasks, if any.
        train: Step size, decay, clipping, rule of the tables.
    """

    def __init__(
        self, network: Iterable[nn.Parameter], encoder: Encoder, loss: MultiTaskLoss, train: TrainSettings
    ) -> None:
        self.train, self.encoder = train, encoder
        self.network = AdamW(list(network), train.weight_decay, train.learning_rate)
        tables = list(encoder.parameters())
        dense = train.table_optimizer == "dense"
        self.free = AdamW([*loss.parameters(), *(tables if dense else [])], 0.0, train.learning_rate)
        self.rows = None if dense else RowOptimizer(tables, train.table_optimizer, train.learning_rate)
        self.touched: list[Touched] = []

    def zero_grad(self) -> None:
        """Forget all gradients, so that a parameter that the next batch does not use stays where it is."""
        for parameter in (*self.network.parameters, *self.free.parameters):
            parameter.grad = None

    def clip(self) -> Tensor:
        """Collect the batch's gradients and bound their common norm by ``train.clip_norm``.

        Returns:
            The norm before clipping, a scalar.
        """
        self.touched = self.encoder.touched()
        if self.train.embedding_decay > 0:
            self._decay_rows()
        everything = (*self.network.parameters, *self.free.parameters)
        gradients = [parameter.grad for parameter in everything if parameter.grad is not None]
        gradients += [one.gradient for one in self.touched]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (self.train.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self) -> None:
        """Move everything that the batch gave a gradient."""
        self.network.step()
        self.free.step()
        if self.rows is not None:
            self.rows.step(self.touched)
        self.touched = []

    def _decay_rows(self) -> None:
        decay = self.train.embedding_decay
        with torch.no_grad():
            for one in self.touched:
                one.gradient.add_(one.table[one.rows], alpha=decay)
            if self.rows is None:
                for table in self.encoder.parameters():
                    if table.grad is not None:
                        read = (table.grad != 0).any(1, keepdim=True)
                        table.grad.add_(table * read, alpha=decay)

    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on exactly."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state.

        Args:
            state: What :meth:`state` gave for an optimizer of the same parameters.
        """
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"network": self.network.state(), "free": self.free.state()}
        if self.rows is not None:
            parts["rows"] = self.rows.state()
        return {
            f"{part}.{kind}.{at}": tensor
            for part, state in parts.items()
            for kind, tensors in state.items()
            for at, tensor in enumerate(tensors)
        }
