"""A model as a few files of bytes: safetensors weights and JSON, nothing that runs code when read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors import torch as safetensors

from components.config import ModelRecipe, Task, TrainSettings
from components.errors import BundleError, MfhError
from components.models.fields import InputSpec, Vocabularies
from components.models.fitted import EpochLoss, Fitted, Ranker
from components.models.zoo import parameter_table

FORMAT = 1
WEIGHTS, BUNDLE, VOCAB, CARD = "weights.safetensors", "bundle.json", "vocab.json", "model_card.md"
FILES = (WEIGHTS, BUNDLE, VOCAB, CARD)


def save(fitted: Fitted, extra: dict[str, Any]) -> dict[str, bytes]:
    """Write a model to bytes; equal models give equal bytes (timings are left out).

    Args:
        fitted: The model.
        extra: Facts to keep with it (group threshold, window, config hash), JSON types only.

    Returns:
        File name to content.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
    files = {
        WEIGHTS: safetensors.save(state),
        VOCAB: fitted.vocab.to_json(fitted.spec).encode(),
        CARD: _card(fitted, extra).encode(),
    }
    content = {
        "format": FORMAT,
        "recipe": fitted.recipe.model_dump(mode="json"),
        "train": fitted.train.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json") for task in fitted.tasks],
        "group_names": list(fitted.group_names),
        "spec": asdict(fitted.spec),
        "history": [asdict(record) for record in fitted.history],
        "warnings": list(fitted.warnings),
        "rows": fitted.rows,
        "extra": extra,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    files[BUNDLE] = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False).encode()
    return {name: files[name] for name in FILES}


def load(files: Mapping[str, bytes]) -> Fitted:
    """Read what :func:`save` wrote, on the CPU.

    Args:
        files: File name to content.

    Returns:
        The model, with the ``extra`` it was saved with.

    Raises:
        BundleError: When a file is missing, truncated or changed, or the weights are not of the recipe's shapes.
    """
    if missing := [name for name in FILES if name not in files]:
        raise BundleError(f"the model bundle lacks {', '.join(missing)}; it holds {sorted(files)}")
    try:
        content = json.loads(files[BUNDLE])
        if content["format"] != FORMAT:
            raise BundleError(f"{BUNDLE} is of format {content['format']}, this version reads format {FORMAT}")
        for name, digest in content["sha256"].items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise BundleError(f"{name} is truncated or changed: its hash is not the one that {BUNDLE} records")
        recipe = ModelRecipe.model_validate(content["recipe"])
        train = TrainSettings.model_validate(content["train"])
        tasks = tuple(Task.model_validate(task) for task in content["tasks"])
        group_names = tuple(content["group_names"])
        columns: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["spec"].items()}
        spec = InputSpec(**columns)
        vocab = Vocabularies.from_json(files[VOCAB].decode(), spec)
        history = tuple(EpochLoss(**record) for record in content["history"])
        rest = (history, tuple(content["warnings"]), int(content["rows"]), None, dict(content["extra"]))
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, MfhError) as error:
        raise BundleError(f"{BUNDLE} can not be read: {type(error).__name__}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        model = Ranker(recipe, train, spec, vocab, behaviours=len(tasks), groups=len(group_names))
    _fill(model, files[WEIGHTS])
    return Fitted(recipe, train, tasks, group_names, spec, vocab, model.eval(), *rest)


def _fill(model: Ranker, weights: bytes) -> None:
    try:
        state = safetensors.load(weights)
    except SafetensorError as error:
        raise BundleError(f"{WEIGHTS} can not be read: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted != found:
        name = min(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        raise BundleError(
            f"{WEIGHTS} does not fit the recipe: {name} has shape {found.get(name, 'none (absent)')}, "
            f"the recipe asks for {wanted.get(name, 'none (absent)')}"
        )
    model.load_state_dict(state)


def _card(fitted: Fitted, extra: dict[str, Any]) -> str:
    """The model card: what the model is, what it reads and gives, and how training went."""
    last = max((record.epoch for record in fitted.history), default=0)
    final = [record for record in fitted.history if record.epoch == last and record.group is None]
    losses = {"mse": "squared error, linear head", "bce": "cross-entropy on a logit"}
    lines = [
        f"# {fitted.recipe.kind.upper()} ranker",
        "",
        f"Trained on {fitted.rows} rows, {fitted.train.epochs} epochs, seed {fitted.train.seed}. For a (user, video) "
        "pair at a request it gives one number per task, read from the heads of the user's own group.",
        "",
        "| task | loss | weight | training loss | validation loss |",
        "|---|---|---|---|---|",
        *(
            f"| {task.name} | {losses[task.loss]} | {task.weight:g} | {_number(end.train_loss)} "
            f"| {_number(end.valid_loss)} |"
            for task, end in zip(fitted.tasks, final, strict=False)
        ),
        "",
        f"Groups, least active first: {', '.join(fitted.group_names)}.",
        "",
        f"Inputs: {', '.join(fitted.spec.columns)}.",
        "",
        "| block | parameters |",
        "|---|---|",
        *(f"| {row.block} | {row.parameters} |" for row in parameter_table(fitted.model.network)),
        f"| embeddings | {parameter_table(fitted.model.encoder)[-1].parameters} |",
        "",
        "## Warnings",
        "",
        *([f"- {text}" for text in fitted.warnings] or ["None."]),
        "",
        "## Recorded with the model",
        "",
        *(f"- {key}: {json.dumps(value, sort_keys=True)}" for key, value in sorted(extra.items())),
        "",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not available" if value is None else f"{value:.5f}"
