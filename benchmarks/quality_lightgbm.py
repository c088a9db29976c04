"""LightGBM (Ke et al., NeurIPS 2017), one booster per task: the strong reference that is no neural network.

It reads what the networks read, in the form that suits trees: numbers as they are with nulls kept, categories as
categories, and every id column as one number per task, its smoothed mean label. Rows of the training days get the mean
of the other folds, so that no row sees its own label; later rows get the mean of all training days.
"""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.quality_data import Examples
from components.models.fields import HISTORY_ID, InputSpec, Vocabularies, encode
from components.models.settings import Task

Floats = NDArray[np.float64]

# Tuned on validation days of KuaiRand and of the built-in world: benchmarks/results/quality_tuning.md.
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "cat_smooth": 50.0,
    "max_cat_threshold": 16,
    "max_bin": 255,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 1_000
PATIENCE = 40
FOLDS = 5
# A mean label is (sum + STRENGTH x mean of all rows) / (rows + STRENGTH).
STRENGTH = 20.0


def fit_lightgbm(data: Examples, parts: list[pa.Table], seed: int) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    """Fit a booster per task, stopped early on the validation days.

    Args:
        data: The examples.
        parts: Tables to score.
        seed: Folds, samples of rows and of columns.

    Returns:
        float32 [N, m] per part, and the rounds of each task.
    """
    tables = [data.train, data.valid, *parts]
    vocab = Vocabularies.fit(data.train, data.spec, min_count=1)
    inputs = [_inputs(table, data.spec, vocab) for table in tables]
    codes = [_id_codes(table, data.spec, vocab) for table in tables]
    fold = np.random.default_rng(seed).integers(0, FOLDS, data.train.num_rows)
    predicted = [np.zeros((table.num_rows, len(data.pipeline.tasks)), np.float32) for table in parts]
    rounds = {}
    for at, task in enumerate(data.pipeline.tasks):
        labels = [_label(table, task) for table in tables[:2]]
        means = [_mean_labels(codes[0], other, labels[0], fold if other is codes[0] else None) for other in codes]
        matrix = [np.hstack([one, mean]) for one, mean in zip(inputs, means, strict=True)]
        booster = _fit_task(task, matrix[:2], labels, _categorical(data.spec), seed)
        rounds[task.name] = booster.best_iteration
        for out, rows in zip(predicted, matrix[2:], strict=True):
            out[:, at] = np.asarray(booster.predict(rows, num_iteration=booster.best_iteration, num_threads=1))
    return predicted, {"rounds": rounds}


def _fit_task(
    task: Task, matrix: list[Floats], labels: list[Floats], categorical: list[int], seed: int
) -> lightgbm.Booster:
    objective = {"objective": "regression", "metric": "l2"} if task.loss == "mse" else {"objective": "binary"}
    # Likelihood, not AUC, stops a booster: it judges probabilities, which the simulator and the fusion read, as well.
    metric = {} if task.loss == "mse" else {"metric": "binary_logloss"}
    kept = [np.isfinite(label) for label in labels]
    sets = [
        lightgbm.Dataset(rows[keep], label[keep], categorical_feature=categorical, free_raw_data=True)
        for rows, label, keep in zip(matrix, labels, kept, strict=True)
    ]
    sets[1].set_reference(sets[0])
    return lightgbm.train(
        PARAMETERS | objective | metric | {"seed": seed},
        sets[0],
        ROUNDS,
        valid_sets=[sets[1]],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _inputs(table: pa.Table, spec: InputSpec, vocab: Vocabularies) -> Floats:
    """Categories, the group, numbers, and of the history its length and whether the video is in it: float64 [N, c]."""
    encoded = encode(table, spec, vocab)
    first = len(spec.ids)
    categories = encoded.index[:, first:] - np.array(vocab.offsets[first:-1], np.int32)
    columns = [categories.astype(np.float64), table["group"].to_numpy()[:, None].astype(np.float64)]
    columns += [_numbers(table[name])[:, None] for name in spec.numeric]
    if spec.history is not None:
        video = encoded.index[:, [spec.ids.index(HISTORY_ID)]]
        columns.append((encoded.history > 0).sum(1, keepdims=True).astype(np.float64))
        columns.append((encoded.history == video).sum(1, keepdims=True).astype(np.float64))
    return np.hstack(columns)


def _categorical(spec: InputSpec) -> list[int]:
    return list(range(len(spec.categories) + 1))


def _id_codes(table: pa.Table, spec: InputSpec, vocab: Vocabularies) -> list[tuple[NDArray[np.int64], int]]:
    """Codes of every id column, and how many there are; 0 is an id that the training days do not have."""
    index = encode(table, spec, vocab, spec.ids).index
    return [
        (index[:, at].astype(np.int64) - vocab.offsets[at], len(vocab.values[at]) + 1) for at in range(len(spec.ids))
    ]


def _mean_labels(
    train: list[tuple[NDArray[np.int64], int]],
    rows: list[tuple[NDArray[np.int64], int]],
    label: Floats,
    fold: NDArray[np.int64] | None,
) -> Floats:
    """Smoothed mean label of each id in the training days.

    Args:
        train: Codes of the training rows.
        rows: Codes of the rows to encode.
        label: float64 [N], of the training rows, NaN = missing.
        fold: int64 [N], fold of each row where ``rows`` are the training rows themselves, whose own fold is left out.

    Returns:
        float64 [N, ids].
    """
    present = np.isfinite(label)
    value, mean = np.where(present, label, 0.0), float(label[present].mean()) if present.any() else 0.0
    found = []
    for (known, size), (asked, _) in zip(train, rows, strict=True):
        total = np.bincount(known, weights=value, minlength=size)[asked]
        count = np.bincount(known, weights=present, minlength=size)[asked]
        if fold is not None:
            cell = known * FOLDS + fold
            total -= np.bincount(cell, weights=value, minlength=size * FOLDS)[cell]
            count -= np.bincount(cell, weights=present, minlength=size * FOLDS)[cell]
        known_at_all = asked > 0
        found.append(
            (np.where(known_at_all, total, 0.0) + STRENGTH * mean) / (np.where(known_at_all, count, 0.0) + STRENGTH)
        )
    return np.stack(found, axis=1)


def _label(table: pa.Table, task: Task) -> Floats:
    return _numbers(table[task.name])


def _numbers(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.cast(column, pa.float64()).to_numpy().astype(np.float64)
    return values
