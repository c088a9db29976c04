"""Every model that a comparison of quality can name, behind one call: fit on the training days, score the others."""

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.quality_data import Examples
from components.config import Pipeline
from components.errors import ConfigError
from components.inputs import GROUPS
from components.models.settings import MODEL_KINDS

if TYPE_CHECKING:
    from components.models.fitted import Fitted

OUTSIDE = ("lightgbm", "rechub_mmoe", "rechub_ple")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One model trained with one seed.

    Attributes:
        model: Its name.
        seed: Its seed.
        valid: float32 [N, m], probabilities (completion: the ratio) of the validation rows.
        test: The same of the test rows, None without them.
        seconds: Wall time of fitting and scoring.
        facts: What a reader may want to know of the fit: JSON types only.
    """

    model: str
    seed: int
    valid: NDArray[np.float32]
    test: NDArray[np.float32] | None
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> NDArray[np.float32]:
        """Predictions of ``Examples.judged``."""
        return self.valid if self.test is None else self.test


def require_models(names: tuple[str, ...], pipeline: Pipeline) -> None:
    """Refuse names before the first model trains.

    Args:
        names: Models asked for.
        pipeline: May define models of its own.

    Raises:
        ConfigError: When there is none, a name is unknown or listed twice, or the package that a model needs is not
            installed.
    """
    known = (*MODEL_KINDS, *pipeline.models, *OUTSIDE)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"unknown models {', '.join(unknown)}; known are {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"name every model once and at least one, found {', '.join(names) or 'none'}")
    from importlib.util import find_spec

    for name, module in (("lightgbm", "lightgbm"), ("rechub_mmoe", "torch_rechub"), ("rechub_ple", "torch_rechub")):
        if name in names and find_spec(module) is None:
            raise ConfigError(
                f"{name} needs the package {module}; install the extra: pip install 'mfh-pipeline[bench]'"
            )


def fit(name: str, seed: int, data: Examples) -> Outcome:
    """Train one model on the training days and score the validation and test days.

    Args:
        name: A model that :func:`require_models` let pass.
        seed: Weights, order of rows, samples of rows and columns.
        data: The examples.

    Returns:
        Its predictions.
    """
    began = time.perf_counter()
    import torch

    torch.set_num_threads(data.pipeline.train.threads)
    parts = [data.valid] if data.test is None else [data.valid, data.test]
    if name == "lightgbm":
        from benchmarks.quality_lightgbm import fit_lightgbm

        predicted, facts = fit_lightgbm(data, parts, seed)
    elif name in OUTSIDE:
        from benchmarks.quality_rechub import fit_rechub

        predicted, facts = fit_rechub(name.removeprefix("rechub_"), data, parts, seed)
    else:
        predicted, facts = _fit_zoo(name, data, parts, seed)
    test = None if data.test is None else predicted[1]
    return Outcome(name, seed, predicted[0], test, time.perf_counter() - began, facts)


def _fit_zoo(
    name: str, data: Examples, parts: list[pa.Table], seed: int
) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    from components.models import trainer
    from components.models.search import search

    pipeline, recipe = data.pipeline, data.pipeline.recipe(name)
    settings = replace(pipeline.train, seed=seed)
    if recipe.kind == "mtnas" and not recipe.search.route:
        recipe = search(recipe, settings, pipeline.tasks, GROUPS, data.spec, data.train)
    fitted = trainer.fit(recipe, settings, pipeline.tasks, GROUPS, data.spec, data.train, valid=data.valid)
    facts = {"parameters": fitted.parameters, "epochs": _epochs(fitted), "warnings": list(fitted.warnings)}
    if recipe.search.route:
        facts["route"] = recipe.search.route
    return [fitted.predict(part) for part in parts], facts


def _epochs(fitted: "Fitted") -> float:
    """Passes over the training rows that the weights come from."""
    return round(fitted.step / -(-fitted.rows // fitted.train.batch_size), 2)
