"""Our inputs, tasks and sizes as torch-rechub's features and models: what both comparisons with it share."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE

from components.models.fields import HISTORY_ID, InputSpec, Vocabularies, encode
from components.models.settings import ModelRecipe, Task, TrainSettings

DROPOUT = 0.2

Arrays = dict[str, NDArray[Any]]


def build(kind: str, recipe: ModelRecipe, tasks: tuple[Task, ...], features: list[Any]) -> torch.nn.Module:
    """One of its models in the sizes of a recipe's first switcher and large towers.

    Args:
        kind: ``mmoe`` or ``ple``.
        recipe: Its PLE has one width, the first, in both layers; it has no level 0.
        tasks: m tasks.
        features: From :func:`describe`.

    Returns:
        The model, weights from torch's global generator.
    """
    level, types = recipe.level1, types_of(tasks)
    towers = [{"dims": list(recipe.tower_widths), "dropout": DROPOUT} for _ in tasks]
    model: torch.nn.Module
    if kind == "mmoe":
        expert = {"dims": list(level.widths), "dropout": DROPOUT}
        model = MMOE(features, types, len(tasks) * level.experts + level.shared, expert, towers)
    else:
        expert = {"dims": [level.widths[0]], "dropout": DROPOUT}
        model = PLE(features, types, len(level.widths), level.experts, level.shared, expert, towers)
    return model


def types_of(tasks: tuple[Task, ...]) -> list[str]:
    """Its names of the tasks' losses."""
    return ["regression" if task.loss == "mse" else "classification" for task in tasks]


def describe(spec: InputSpec, vocab: Vocabularies, train: TrainSettings, groups: int) -> list[Any]:
    """Its description of the inputs: one table a field, of which row 0 is padding and row 1 the unknown.

    It joins embeddings of one width only, so every field gets the ids'.

    Args:
        spec: What our models read.
        vocab: Fitted on the training window.
        train: Embedding widths.
        groups: k, user groups.

    Returns:
        Its features.
    """
    found: list[Any] = []
    for name, values in zip(spec.indexed, vocab.values, strict=True):
        found.append(SparseFeature(name, len(values) + 2, train.id_embedding))
    found.append(SparseFeature("group", groups, train.id_embedding))
    if spec.history is not None:
        video = found[spec.ids.index(HISTORY_ID)]
        found.append(
            SequenceFeature(
                spec.history, video.vocab_size, video.embed_dim, pooling="mean", shared_with=HISTORY_ID, padding_idx=0
            )
        )
    if spec.numeric:
        found.append(DenseFeature("numbers", len(spec.numeric)))
    return found


def arrays(table: pa.Table, spec: InputSpec, vocab: Vocabularies) -> Arrays:
    """A table as its models read it.

    Args:
        table: N rows with the spec's columns and ``group``.
        spec: What our models read.
        vocab: Fitted on the training window.

    Returns:
        An array per feature.
    """
    encoded = encode(table, spec, vocab)
    found: Arrays = {
        name: encoded.index[:, at].astype(np.int64) - vocab.offsets[at] + 1 for at, name in enumerate(spec.indexed)
    }
    found["group"] = table["group"].to_numpy().astype(np.int64)
    if spec.history is not None:
        shift = vocab.offsets[spec.ids.index(HISTORY_ID)] - 1
        found[spec.history] = np.where(encoded.history > 0, encoded.history - shift, 0).astype(np.int64)
    if spec.numeric:
        found["numbers"] = encoded.numeric
    return found
