"""The encoder that every model of the zoo shares: embeddings, pooled history and numbers side by side."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.fields import HISTORY_ID, InputSpec, Vocabularies

# Small against the normalised numbers, so that a rarely seen id starts out as "no opinion".
EMBEDDING_STD = 0.05


class Encoder(nn.Module):
    """Encoded columns to the input x of the networks.

    Two tables cover the fused index space: one for the ids (and the history), one for the categories, because their
    widths differ. Padding rows are zero and stay zero; unknown rows start at zero, so that one that training never
    meets has no say.

    Args:
        spec: What the model reads.
        vocab: Fitted on the training window.
        id_width: Embedding width of an id column.
        category_width: Embedding width of a category column.

    Attributes:
        width: D, the width of x.
    """

    def __init__(self, spec: InputSpec, vocab: Vocabularies, id_width: int, category_width: int) -> None:
        super().__init__()
        self.id_fields = len(spec.ids)
        self.pools_history = spec.history is not None
        # The category table has a padding row of its own in front.
        self.category_shift = vocab.id_rows - 1
        self.ids = nn.Parameter(torch.empty(vocab.id_rows, id_width).normal_(std=EMBEDDING_STD))
        rows = vocab.rows - self.category_shift
        self.categories = nn.Parameter(torch.empty(rows, category_width).normal_(std=EMBEDDING_STD))
        offsets = torch.tensor(vocab.offsets[:-1])
        with torch.no_grad():
            self.ids[0] = 0.0
            self.ids[offsets[: self.id_fields]] = 0.0
            self.categories[0] = 0.0
            self.categories[offsets[self.id_fields :] - self.category_shift] = 0.0
        self.width = len(spec.ids) * id_width + len(spec.categories) * category_width + len(spec.numeric)
        if self.pools_history:
            assert HISTORY_ID in spec.ids
            self.width += id_width

    def forward(self, index: Tensor, numeric: Tensor, history: Tensor) -> Tensor:
        """Look up, pool and join.

        Args:
            index: int32 [B, F], rows of the fused index space, 0 = padding.
            numeric: float32 [B, n].
            history: int32 [B, L], rows of the fused index space, 0 = padding; a row of padding pools to zeros.

        Returns:
            float32 [B, D], in the order ids, categories, pooled history, numbers.
        """
        ids, categories = index[:, : self.id_fields], index[:, self.id_fields :]
        parts = [functional.embedding(ids, self.ids).flatten(1)]
        if categories.shape[1]:
            rows = (categories - self.category_shift).clamp_(min=0)
            parts.append(functional.embedding(rows, self.categories).flatten(1))
        if self.pools_history:
            parts.append(functional.embedding_bag(history, self.ids, mode="mean", padding_idx=0))
        return torch.cat([*parts, numeric], dim=1)
