"""Score many (user, video) pairs without encoding a user or a video more than once."""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.errors import SourceError
from components.models.crosses import CrossTable
from components.models.fields import encode
from components.models.fitted import Fitted


class PairScorer:
    """A model that scores pairs of rows of two tables.

    The encoder's output is a concatenation, so the parts of x that come from a user, a video and a request are encoded
    apart, each with zeros in the others' places, and their sum is x to the bit. Inputs that belong to the pair (the
    spec's crosses) are looked up in the users' lists and encoded with the request.

    Args:
        fitted: The model.
        users: One row per user with the spec's user columns and the lists of its crosses.
        videos: One row per video with the spec's video columns and the items of its crosses.
    """

    def __init__(self, fitted: Fitted, users: pa.Table, videos: pa.Table) -> None:
        self.fitted = fitted
        self._users = self._part(users, fitted.spec.user_columns)
        self._videos = self._part(videos, fitted.spec.video_columns)
        crosses = fitted.spec.crosses
        self._crosses = CrossTable(users, videos, crosses) if crosses else None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the columns of ``score``."""
        return tuple(task.name for task in self.fitted.tasks)

    def _part(self, table: pa.Table, columns: tuple[str, ...]) -> Tensor:
        """float32 [N, D], zeros outside of ``columns``."""
        encoded = encode(table, self.fitted.spec, self.fitted.vocab, columns)
        arrays = (encoded.index, encoded.numeric, encoded.history)
        with torch.no_grad():
            x: Tensor = self.fitted.model.encoder(*(torch.from_numpy(a).to(self.fitted.device) for a in arrays))
        return x

    def score(
        self,
        user_index: NDArray[np.integer],
        video_index: NDArray[np.integer],
        context: pa.Table | None,
        group: NDArray[np.integer],
    ) -> NDArray[np.float32]:
        """Score N pairs.

        Args:
            user_index: Integer [N], rows of the users' table.
            video_index: Integer [N], rows of the videos' table.
            context: N rows with the spec's context columns, its crosses left out; None only for a spec without any.
            group: Integer [N], each pair's user group, 0 to k - 1.

        Returns:
            float32 [N, m]: what ``Fitted.predict`` gives for the joined table. A pair's numbers do not depend on the
            other pairs.

        Raises:
            SourceError: When a context column is missing or the lengths differ.
        """
        fitted, rows = self.fitted, len(user_index)
        lengths = {rows, len(video_index), len(group), rows if context is None else context.num_rows}
        if len(lengths) != 1:
            raise SourceError(f"users, videos, context and groups of pairs differ in length: {sorted(lengths)}")
        if context is None and fitted.spec.context_columns:
            raise SourceError(f"the model reads context columns {fitted.spec.context_columns}, but none were given")
        if context is not None and self._crosses is not None:
            for name, column in self._crosses.columns(user_index, video_index).items():
                context = context.append_column(name, column)
        request = None if context is None else self._part(context, fitted.spec.context_columns)
        users = torch.from_numpy(np.asarray(user_index, np.int64)).to(fitted.device)
        videos = torch.from_numpy(np.asarray(video_index, np.int64)).to(fitted.device)

        def inputs(at: Tensor) -> Tensor:
            x = self._users[users[at]] + self._videos[videos[at]]
            return x if request is None else x + request[at]

        return fitted.score_rows(inputs, np.asarray(group, np.int8))
