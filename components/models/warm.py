"""Warm start: a model begins with the weights of an earlier one of the same recipe.

The network's weights are taken as they are. Embedding rows belong to values, not to places: a value that both windows
know takes its row along, as does each field's row for unknown values; a value that is new starts fresh. Scales of
numbers are those of the new window, so what the network reads of them shifts as the data does. Moments of the optimizer
and learned loss weights start fresh.
"""

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import torch

from components.errors import TrainingError
from components.models.encoder import BINS
from components.models.fields import InputSpec, Vocabularies
from components.models.fitted import Fitted, Ranker
from components.models.settings import ModelRecipe, Task, TrainSettings

# Settings that shape the weights; the others may change from day to day.
SHAPES = ("id_embedding", "field_embedding", "embedding_widths", "number_bins")


def difference(
    start: Fitted,
    recipe: ModelRecipe,
    train: TrainSettings,
    tasks: tuple[Task, ...],
    group_names: tuple[str, ...],
    spec: InputSpec,
) -> str:
    """Why a model can not be the start of another one.

    Args:
        start: The earlier model.
        recipe: Network kind and sizes of the new one; a route that is still to be searched fits any.
        train: Embedding widths.
        tasks: m behaviours.
        group_names: k groups.
        spec: What the model reads.

    Returns:
        What differs, in the plural; empty where nothing does.
    """
    old_recipe = start.recipe
    if not recipe.search.route:
        old_recipe = replace(old_recipe, search=replace(old_recipe.search, route=""))
    pairs = {
        "layer sizes": (old_recipe, recipe),
        "embedding widths": tuple([getattr(one, name) for name in SHAPES] for one in (start.train, train)),
        "tasks": tuple([task.name for task in given] for given in (start.tasks, tasks)),
        "groups": (start.group_names, group_names),
        "inputs": (start.spec, spec),
    }
    return ", ".join(name for name, (old, new) in pairs.items() if old != new)


def require_alike(
    start: Fitted,
    recipe: ModelRecipe,
    train: TrainSettings,
    tasks: tuple[Task, ...],
    group_names: tuple[str, ...],
    spec: InputSpec,
) -> None:
    """Refuse a start that does not fit.

    Args:
        start: The earlier model.
        recipe: Network kind and sizes of the new one.
        train: Embedding widths.
        tasks: m behaviours.
        group_names: k groups.
        spec: What the model reads.

    Raises:
        TrainingError: When it is of another recipe, other tasks, groups or inputs.
    """
    if found := difference(start, recipe, train, tasks, group_names, spec):
        raise TrainingError(
            f"the model to start from has other {found}; train without it, or give one that has the same"
        )


def adopt(model: Ranker, vocab: Vocabularies, start: Fitted) -> int:
    """Give a fresh model the weights of an earlier one.

    Args:
        model: Changed in place.
        vocab: The model's.
        start: The earlier model; :func:`require_alike` let it pass.

    Returns:
        How many known values took their embeddings along.
    """
    model.network.load_state_dict(start.model.network.state_dict())
    taken = 0
    encoder, other = model.encoder, start.model.encoder
    with torch.no_grad():
        if BINS in encoder.tables:
            encoder.tables[BINS].copy_(other.tables[BINS])
        for width, members in encoder.fields.items():
            table = encoder.tables[str(width)]
            old = other.tables[str(width)].to(table.device)
            # Row 0 is padding; then every field has its row for unknown values and one per known value.
            first, first_old = 1, 1
            for field in members:
                values, values_old = vocab.values[field], start.vocab.values[field]
                place = pc.fill_null(pc.index_in(values, value_set=values_old), -1).to_numpy(zero_copy_only=False)
                known = torch.from_numpy(np.flatnonzero(place >= 0)).to(table.device)
                rows_old = torch.from_numpy(place[place >= 0].astype(np.int64)).to(table.device)
                table[first] = old[first_old]
                table[first + 1 + known] = old[first_old + 1 + rows_old]
                taken += len(known)
                first, first_old = first + 1 + len(values), first_old + 1 + len(values_old)
    return taken
