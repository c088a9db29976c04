"""The encoder that every model of the zoo shares: embeddings, pooled history and numbers side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.fields import HISTORY_ID, InputSpec, Vocabularies
from components.models.network import EMBEDDING_STD
from components.models.settings import TrainSettings

# Name of the table of the numbers' bins; the others are named by their width.
BINS = "bins"


@dataclass(frozen=True)
class Touched:
    """What a batch reads of a table.

    Attributes:
        table: The table, [R, w].
        rows: int64 [U], distinct rows.
        gradient: float32 [U, w].
    """

    table: nn.Parameter
    rows: Tensor
    gradient: Tensor


class Encoder(nn.Module):
    """Encoded columns to the input x of the networks.

    Fields of equal embedding width share one table, each with an offset of its own; row 0 of a table is padding.
    Padding rows are zero and stay zero; the rows of unknown values start at zero, so that one that training never meets
    has no say.

    With ``number_bins`` every number also falls into a bin, whose embedding lies in a table of its own: thresholds for
    networks, as trees have them. The bins' edges are quantiles of the normal distribution, since numbers come
    standardised; a number that is 0 exactly is missing, and falls into no bin.

    With ``table_optimizer`` ``lazy`` or ``rowwise`` a training pass looks the batch's rows up through a small copy of
    them, so that neither gradient nor update is as large as the table; :meth:`touched` hands the gradient out.

    Args:
        spec: What the model reads.
        vocab: Fitted on the training window.
        train: Embedding widths, dropout of ids, how tables are updated.
        copies: Encoders side by side with tables of their own (single-task models); numbers are shared.

    Attributes:
        width: D, the width of x of one copy.
        generator: Draws of the dropout of ids; None means torch's global one.
    """

    def __init__(self, spec: InputSpec, vocab: Vocabularies, train: TrainSettings, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        self.generator: torch.Generator | None = None
        self.sparse = train.table_optimizer != "dense"
        widths = [train.embedding_widths.get(name, train.id_embedding) for name in spec.ids]
        widths += [train.embedding_widths.get(name, train.field_embedding) for name in spec.categories]
        self.fields: dict[int, list[int]] = {
            width: [at for at, one in enumerate(widths) if one == width] for width in sorted(set(widths), reverse=True)
        }
        self.tables = nn.ParameterDict()
        shifts = torch.zeros(len(widths), dtype=torch.int32)
        for width, members in self.fields.items():
            rows = 1 + sum(len(vocab.values[at]) + 1 for at in members)
            table = torch.empty(rows, copies * width).normal_(std=EMBEDDING_STD)
            table[0], start = 0.0, 1
            for at in members:
                table[start] = 0.0
                shifts[at] = start - vocab.offsets[at]
                start += len(vocab.values[at]) + 1
            self.tables[str(width)] = nn.Parameter(table)
        self.shifts: Tensor
        self.unknown: Tensor
        self.dropout: Tensor
        self.register_buffer("shifts", shifts, persistent=False)
        ids = len(spec.ids)
        self.register_buffer("unknown", torch.tensor(vocab.offsets[:ids], dtype=torch.int32), persistent=False)
        shares = [train.embedding_dropouts.get(name, train.embedding_dropout) for name in spec.ids]
        self.register_buffer("dropout", torch.tensor(shares), persistent=False)
        self.drops = any(share > 0 for share in shares)
        self.history_field = spec.ids.index(HISTORY_ID) if spec.history is not None else None
        self.bins = train.number_bins if spec.numeric else 0
        self.width = sum(widths) + len(spec.numeric)
        if self.bins:
            self._add_bins(len(spec.numeric), train.field_embedding)
        if self.history_field is not None:
            self.width += widths[self.history_field]
        self._compact: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def forward(self, index: Tensor, numeric: Tensor, history: Tensor) -> Tensor:
        """Look up, pool and join.

        Args:
            index: int32 [B, F], rows of the fused index space, 0 = padding.
            numeric: float32 [B, n].
            history: int32 [B, L], rows of the fused index space, 0 = padding; a row of padding pools to zeros.

        Returns:
            float32 [B, D], or [B, copies, D] for several copies: embeddings by falling width, pooled history, bins of
            numbers, numbers.
        """
        if self.training and self.drops:
            index = self._with_unknown(index)
        rows = torch.where(index > 0, index + self.shifts, 0)
        parts = []
        self._compact.clear()
        for width, members in self.fields.items():
            chosen = rows if len(members) == rows.shape[1] else rows[:, members]
            pooled = None
            if self.history_field in members:
                pooled = torch.where(history > 0, history + self.shifts[self.history_field], 0)
            table: Tensor = self.tables[str(width)]
            if self.training and self.sparse:
                table, chosen, pooled = self._narrowed(self.tables[str(width)], chosen, pooled)
            found = functional.embedding(chosen, table, padding_idx=0)
            parts.append(found.flatten(1) if self.copies == 1 else self._by_copy(found))
            if pooled is not None:
                mean = functional.embedding_bag(pooled, table, mode="mean", padding_idx=0)
                parts.append(mean if self.copies == 1 else self._by_copy(mean.unsqueeze(1)))
        if self.bins:
            parts.append(self._binned(numeric))
        shared = numeric if self.copies == 1 else numeric.unsqueeze(1).expand(-1, self.copies, -1)
        return torch.cat([*parts, shared], dim=-1)

    def touched(self) -> list[Touched]:
        """The rows that the last training pass read, with their gradients; afterwards there are none.

        Returns:
            One entry per table that the backward pass reached; none with ``table_optimizer: dense``.
        """
        # Row 0 is padding, which never moves.
        found = [
            Touched(table, rows[1:], leaf.grad[1:]) for table, rows, leaf in self._compact if leaf.grad is not None
        ]
        self._compact.clear()
        return found

    def _add_bins(self, numbers: int, width: int) -> None:
        """A table with a row of padding and ``bins`` rows for every number."""
        table = torch.empty(1 + numbers * self.bins, self.copies * width).normal_(std=EMBEDDING_STD)
        table[0] = 0.0
        self.tables[BINS] = nn.Parameter(table)
        probability = torch.arange(1, self.bins, dtype=torch.float64) / self.bins
        self.edges: Tensor
        self.firsts: Tensor
        edges = (2.0**0.5 * torch.erfinv(2.0 * probability - 1.0)).float()
        self.register_buffer("edges", edges, persistent=False)
        firsts = 1 + torch.arange(numbers, dtype=torch.int32) * self.bins
        self.register_buffer("firsts", firsts, persistent=False)
        self.width += numbers * width

    def _binned(self, numeric: Tensor) -> Tensor:
        """Embeddings of the numbers' bins: float32 [B, n] to [B, n * w], or [B, copies, n * w]."""
        place = torch.bucketize(numeric.contiguous(), self.edges, out_int32=True) + self.firsts
        chosen = torch.where(numeric == 0, 0, place)
        table: Tensor = self.tables[BINS]
        if self.training and self.sparse:
            table, chosen, _ = self._narrowed(self.tables[BINS], chosen, None)
        found = functional.embedding(chosen, table, padding_idx=0)
        return found.flatten(1) if self.copies == 1 else self._by_copy(found)

    def _with_unknown(self, index: Tensor) -> Tensor:
        ids = len(self.unknown)
        draws = torch.rand(len(index), ids, generator=self.generator, device=index.device)
        changed = torch.where(draws < self.dropout, self.unknown, index[:, :ids])
        return torch.cat([changed, index[:, ids:]], dim=1)

    def _narrowed(
        self, table: nn.Parameter, chosen: Tensor, pooled: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """A copy of the rows that are read, and where in it they lie."""
        wanted = [chosen.new_zeros(1), chosen.flatten(), *([] if pooled is None else [pooled.flatten()])]
        rows, place = torch.unique(torch.cat(wanted), return_inverse=True)
        leaf = table.detach()[rows].requires_grad_()
        self._compact.append((table, rows.long(), leaf))
        end = 1 + chosen.numel()
        return leaf, place[1:end].view(chosen.shape), None if pooled is None else place[end:].view(pooled.shape)

    def _by_copy(self, found: Tensor) -> Tensor:
        """[B, f, copies * w] to [B, copies, f * w]."""
        return found.view(*found.shape[:2], self.copies, -1).transpose(1, 2).flatten(2)
