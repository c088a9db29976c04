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
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator, PredictDataset

from benchmarks import rechub
from benchmarks.quality_data import Examples
from components.inputs import GROUPS
from components.models.fields import InputSpec, Vocabularies
from components.models.settings import Task

# Its documented defaults but for the batch, and for one epoch of patience: benchmarks/results/quality_tuning.md.
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-5
EPOCHS = 10


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
        model = rechub.build(
            kind, pipeline.recipe("ple"), pipeline.tasks, rechub.describe(spec, vocab, pipeline.train, len(GROUPS))
        )
        types = rechub.types_of(pipeline.tasks)
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
                    trainer.model, DataLoader(PredictDataset(rechub.arrays(part, spec, vocab)), batch_size=batch)
                ),
                np.float32,
            )
            for part in parts
        ]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return predicted, {"rows": len(train[1]), "epochs": len(epochs), "parameters": parameters}


def _complete(
    table: pa.Table, spec: InputSpec, vocab: Vocabularies, tasks: tuple[Task, ...]
) -> tuple[rechub.Arrays, NDArray[np.float32]]:
    """Inputs and labels float32 [N, m] of the rows that lack no label."""
    labels = np.stack([table[task.name].cast(pa.float32()).to_numpy() for task in tasks], axis=1)
    kept = np.isfinite(labels).all(1)
    return rechub.arrays(table.filter(pa.array(kept)), spec, vocab), labels[kept]


@contextlib.contextmanager
def _quiet() -> Any:
    """Its trainer prints bars and figures, which belong into no log."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
