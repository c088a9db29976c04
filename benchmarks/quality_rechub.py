"""torch-rechub's MMoE and PLE with its own features, loader and trainer, on the inputs of our networks.

What the package lacks decides the rest: its loss knows no missing label, so a row that lacks one is left out of its
training; its trainer stops on one task; its experts have one width in every layer of PLE.
"""

import contextlib
import io
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator, PredictDataset

from benchmarks.quality_data import Examples
from components.inputs import GROUPS
from components.models.fields import HISTORY_ID, InputSpec, Vocabularies, encode
from components.models.settings import ModelRecipe, Task, TrainSettings

# Its documented defaults but for the batch; tuned on validation days: benchmarks/results/quality_tuning.md.
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-5
EPOCHS = 10
DROPOUT = 0.2

Arrays = dict[str, NDArray[Any]]


def fit_rechub(
    kind: str, data: Examples, parts: list[pa.Table], seed: int
) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    """Train one of its models and score tables.

    Args:
        kind: ``mmoe`` or ``ple``.
        data: The examples.
        parts: Tables to score.
        seed: Weights, order of rows, dropout.

    Returns:
        float32 [N, m] per part, and how many rows it could learn from.
    """
    pipeline, spec = data.pipeline, data.spec
    vocab = Vocabularies.fit(data.train, spec, pipeline.train.min_id_count)
    train, valid = (_complete(table, spec, vocab, pipeline.tasks) for table in (data.train, data.valid))
    batch = pipeline.train.batch_size
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder, _quiet():
        torch.manual_seed(seed)
        model = _build(kind, pipeline.recipe("ple"), pipeline.tasks, _features(spec, vocab, pipeline.train))
        types = _types(pipeline.tasks)
        trainer = MTLTrainer(
            model,
            types,
            optimizer_params={"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
            n_epoch=EPOCHS,
            # Its rule takes a larger figure for a better one, which an error is not.
            earlystop_taskid=types.index("classification"),
            earlystop_patience=1,
            device="cpu",
            model_path=folder,
        )
        loaders = DataGenerator(*train).generate_dataloader(*valid, *valid, batch_size=batch)
        epochs = trainer.fit(loaders[0], loaders[1])
        predicted = [
            np.array(
                trainer.predict(
                    trainer.model, DataLoader(PredictDataset(_arrays(part, spec, vocab)), batch_size=batch)
                ),
                np.float32,
            )
            for part in parts
        ]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return predicted, {"rows": len(train[1]), "epochs": len(epochs), "parameters": parameters}


def _build(kind: str, recipe: ModelRecipe, tasks: tuple[Task, ...], features: list[Any]) -> torch.nn.Module:
    level, types = recipe.level1, _types(tasks)
    towers = [{"dims": list(recipe.tower_widths), "dropout": DROPOUT} for _ in tasks]
    model: torch.nn.Module
    if kind == "mmoe":
        expert = {"dims": list(level.widths), "dropout": DROPOUT}
        model = MMOE(features, types, len(tasks) * level.experts + level.shared, expert, towers)
    else:
        expert = {"dims": [level.widths[0]], "dropout": DROPOUT}
        model = PLE(features, types, len(level.widths), level.experts, level.shared, expert, towers)
    return model


def _types(tasks: tuple[Task, ...]) -> list[str]:
    return ["regression" if task.loss == "mse" else "classification" for task in tasks]


def _features(spec: InputSpec, vocab: Vocabularies, train: TrainSettings) -> list[Any]:
    """Its description of the inputs: one table a field, of which row 0 is padding and row 1 the unknown."""
    found: list[Any] = []
    for name, values in zip(spec.indexed, vocab.values, strict=True):
        width = train.id_embedding if name in spec.ids else train.field_embedding
        found.append(SparseFeature(name, len(values) + 2, train.embedding_widths.get(name, width)))
    found.append(SparseFeature("group", len(GROUPS), train.field_embedding))
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


def _arrays(table: pa.Table, spec: InputSpec, vocab: Vocabularies) -> Arrays:
    encoded = encode(table, spec, vocab)
    arrays: Arrays = {
        name: encoded.index[:, at].astype(np.int64) - vocab.offsets[at] + 1 for at, name in enumerate(spec.indexed)
    }
    arrays["group"] = table["group"].to_numpy().astype(np.int64)
    if spec.history is not None:
        shift = vocab.offsets[spec.ids.index(HISTORY_ID)] - 1
        arrays[spec.history] = np.where(encoded.history > 0, encoded.history - shift, 0).astype(np.int64)
    if spec.numeric:
        arrays["numbers"] = encoded.numeric
    return arrays


def _complete(
    table: pa.Table, spec: InputSpec, vocab: Vocabularies, tasks: tuple[Task, ...]
) -> tuple[Arrays, NDArray[np.float32]]:
    """Inputs and labels float32 [N, m] of the rows that lack no label."""
    labels = np.stack([table[task.name].cast(pa.float32()).to_numpy() for task in tasks], axis=1)
    kept = np.isfinite(labels).all(1)
    return _arrays(table.filter(pa.array(kept)), spec, vocab), labels[kept]


@contextlib.contextmanager
def _quiet() -> Any:
    """Its trainer prints bars and figures, which belong into no log."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
