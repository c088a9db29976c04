"""A trained model with all it needs to score a table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.errors import SourceError, TrainingError
from components.models.curves import EpochLoss
from components.models.encoder import Encoder
from components.models.fields import InputSpec, Vocabularies, encode
from components.models.network import Network
from components.models.settings import ModelRecipe, Task, TrainSettings
from components.models.zoo import build, copies

# Rows of one forward pass when scoring. Every pass has exactly this many rows, all of one cell: matrix products round
# differently for different numbers of rows, and a score must not depend on what else was asked in the same call.
CHUNK_ROWS = 1_024

# Ratios above this are a video on repeat; the squared-error head can also fall below 0.
MAX_RATIO = 2.0

GROUP_COLUMN = "group"


class Ranker(nn.Module):
    """Encoder and network in one module: ``(index, numeric, history, cell) -> logits [B, m]``.

    Args:
        recipe: Kind and layer sizes of the network.
        train: Embedding widths.
        spec: What the model reads.
        vocab: Fitted on the training window.
        behaviours: m.
        facets: Sizes of the facets of which a sample has one value, the user groups first.
    """

    def __init__(
        self,
        recipe: ModelRecipe,
        train: TrainSettings,
        spec: InputSpec,
        vocab: Vocabularies,
        *,
        behaviours: int,
        facets: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.encoder = Encoder(spec, vocab, train, copies(recipe, behaviours))
        self.network = build(recipe, self.encoder.width, behaviours, facets, train.field_embedding)

    @property
    def graph(self) -> Network:
        """The network as what all models of the zoo are."""
        return cast(Network, self.network)

    def forward(self, index: Tensor, numeric: Tensor, history: Tensor, cell: Tensor) -> Tensor:
        """Logits of each row's own cell's heads: see ``Encoder.forward`` for the shapes; float32 [B, m]."""
        logits: Tensor = self.network(self.encoder(index, numeric, history), cell)
        return logits


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model.

    Attributes:
        recipe: The network's kind and sizes.
        train: How it was trained.
        tasks: m tasks, in the order of the outputs.
        group_names: k groups, least active first.
        spec: What the model reads.
        vocab: Vocabularies and scales of the training window.
        model: The weights, in evaluation mode.
        history: Losses per evaluation, task and group.
        warnings: What training met and went on in spite of.
        rows: Rows of the training window.
        step: Steps after which the weights are as they are: all, or those up to the best evaluation.
        scores: Step and score of every evaluation of early stopping; empty without it.
        seconds: Training time; None for a model that was loaded.
        extra: Facts that the caller keeps with the model, such as a group threshold; JSON types only.
    """

    recipe: ModelRecipe
    train: TrainSettings
    tasks: tuple[Task, ...]
    group_names: tuple[str, ...]
    spec: InputSpec
    vocab: Vocabularies
    model: Ranker
    history: tuple[EpochLoss, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: int = 0
    step: int = 0
    scores: tuple[tuple[int, float], ...] = ()
    seconds: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def parameters(self) -> int:
        """Trainable numbers, embeddings included."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def predict(self, table: pa.Table) -> NDArray[np.float32]:
        """Score a table.

        Args:
            table: N rows with the spec's columns and ``group`` (0 to k - 1).

        Returns:
            float32 [N, m]: probabilities; for squared-error tasks the ratio, clipped to [0, 2]. A row's numbers do not
            depend on the other rows of the table.
        """
        group = group_codes(table, len(self.group_names))
        encoded = encode(table, self.spec, self.vocab)
        arrays = [torch.from_numpy(a).to(self.device) for a in (encoded.index, encoded.numeric, encoded.history)]
        return self.score_rows(lambda rows: self.model.encoder(*(a[rows] for a in arrays)), group)

    def score_rows(self, inputs: Callable[[Tensor], Tensor], group: NDArray[np.int8]) -> NDArray[np.float32]:
        """Score rows in passes of ``CHUNK_ROWS`` rows of one group.

        Args:
            inputs: Gives x, float32 [B, D] (or [B, m, D]), for row numbers int64 [B].
            group: int8 [N], each row's group.

        Returns:
            float32 [N, m], as :meth:`predict`.
        """
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group, minlength=len(self.group_names))
        scores = np.empty((len(group), len(self.tasks)), np.float32)
        graph = self.model.eval().graph
        with torch.no_grad():
            for code, rows in enumerate(np.split(order, np.cumsum(counts)[:-1])):
                same = torch.full((CHUNK_ROWS,), code, device=self.device)
                for start in range(0, len(rows), CHUNK_ROWS):
                    part = rows[start : start + CHUNK_ROWS]
                    padded = torch.from_numpy(np.resize(part, CHUNK_ROWS)).to(self.device)
                    logits = graph.heads(inputs(padded), same, code if graph.routes else 0).T
                    scores[part] = self._outputs(logits)[: len(part)].cpu().numpy()
        return scores

    def _outputs(self, logits: Tensor) -> Tensor:
        squared = torch.tensor([task.loss == "mse" for task in self.tasks], device=logits.device)
        return torch.where(squared, logits.clamp(0.0, MAX_RATIO), torch.sigmoid(logits))


def group_codes(table: pa.Table, groups: int) -> NDArray[np.int8]:
    """The ``group`` column, checked.

    Args:
        table: N rows.
        groups: k.

    Returns:
        int8 [N], 0 to k - 1.

    Raises:
        SourceError: When the column is missing.
        TrainingError: When a row's group is null or not one of the k.
    """
    if GROUP_COLUMN not in table.column_names:
        raise SourceError(f"column {GROUP_COLUMN!r} is missing; the table has {table.column_names}")
    column = table[GROUP_COLUMN].combine_chunks()
    codes = column.fill_null(-1).to_numpy(zero_copy_only=False)
    if wrong := int(((codes < 0) | (codes >= groups)).sum()):
        raise TrainingError(f"{wrong} of {len(codes)} rows have a {GROUP_COLUMN!r} outside 0 to {groups - 1} or null")
    found: NDArray[np.int8] = codes.astype(np.int8)
    return found
