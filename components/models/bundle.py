"""A model as a few files of bytes: safetensors weights and JSON, nothing that runs code when read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors import torch as safetensors

from components.errors import BundleError, MfhError
from components.models.crosses import Cross
from components.models.curves import EpochLoss
from components.models.fields import InputSpec, Vocabularies
from components.models.fitted import Fitted, Ranker
from components.models.settings import ModelRecipe, Task, TrainSettings

FORMAT = 2
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
        "recipe": asdict(fitted.recipe),
        "train": asdict(fitted.train),
        "tasks": [asdict(task) for task in fitted.tasks],
        "group_names": list(fitted.group_names),
        "spec": asdict(fitted.spec),
        "history": [asdict(record) for record in fitted.history],
        "warnings": list(fitted.warnings),
        "rows": fitted.rows,
        "step": fitted.step,
        "scores": [list(one) for one in fitted.scores],
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
        recipe = TypeAdapter(ModelRecipe).validate_python(content["recipe"])
        train = TypeAdapter(TrainSettings).validate_python(content["train"])
        tasks = TypeAdapter(tuple[Task, ...]).validate_python(content["tasks"])
        group_names = tuple(content["group_names"])
        columns: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["spec"].items()}
        columns["crosses"] = tuple(Cross(**cross) for cross in columns.get("crosses", ()))
        spec = InputSpec(**columns)
        vocab = Vocabularies.from_json(files[VOCAB].decode(), spec)
        history = tuple(EpochLoss(**record) for record in content["history"])
        rest: dict[str, Any] = {
            "history": history,
            "warnings": tuple(content["warnings"]),
            "rows": int(content["rows"]),
            "step": int(content["step"]),
            "scores": tuple((int(step), float(score)) for step, score in content["scores"]),
            "extra": dict(content["extra"]),
        }
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, MfhError) as error:
        raise BundleError(f"{BUNDLE} can not be read: {type(error).__name__}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        model = Ranker(recipe, train, spec, vocab, behaviours=len(tasks), facets=(len(group_names),))
    _fill(model, files[WEIGHTS])
    return Fitted(recipe, train, tasks, group_names, spec, vocab, model.eval(), **rest)


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
    train = fitted.train
    lines = [
        f"# {fitted.recipe.kind.upper()} ranker",
        "",
        f"Trained on {fitted.rows} rows in batches of {train.batch_size}, at most {train.epochs} epochs, seed "
        f"{train.seed}; the weights are those after step {fitted.step}. For a (user, video) pair at a request it gives "
        "one number per task, read from the heads of the user's own group.",
        "",
        *_tasks(fitted),
        "",
        f"Groups, least active first: {', '.join(fitted.group_names)}.",
        "",
        f"Inputs: {', '.join(fitted.spec.columns)}.",
        "",
        "## Curves' end",
        "",
        *_curves(fitted),
        "",
        "## Graph",
        "",
        *_graph(fitted),
        "",
        "## Settings",
        "",
        *(f"- {name}: {_json(value)}" for name, value in asdict(fitted.recipe).items()),
        *(f"- {name}: {_json(value)}" for name, value in asdict(train).items()),
        "",
        "## Warnings",
        "",
        *([f"- {text}" for text in fitted.warnings] or ["None."]),
        "",
        "## Recorded with the model",
        "",
        *(f"- {key}: {_json(value)}" for key, value in sorted(extra.items())),
        "",
    ]
    return "\n".join(lines)


def _tasks(fitted: Fitted) -> list[str]:
    losses = {"mse": "squared error, linear head", "bce": "cross-entropy on a logit"}
    rows = [
        f"| {task.name} | {losses[task.loss]} | {task.weight:g} | {task.positive_weight} |" for task in fitted.tasks
    ]
    return ["| task | loss | weight | weight of positives |", "|---|---|---|---|", *rows]


def _curves(fitted: Fitted) -> list[str]:
    """Losses at the evaluation whose weights these are, over all rows and by group."""
    rows = [
        f"| {one.task} | {one.group or 'all'} | {_number(one.train_loss)} | {one.train_entries} "
        f"| {_number(one.valid_loss)} | {one.valid_entries} |"
        for one in fitted.history
        if one.step == fitted.step
    ]
    head = "| task | group | training loss | labels | validation loss | labels |"
    scores = [f"Early stopping's score after step {step}: {score:.5f}." for step, score in fitted.scores]
    return [head, "|---|---|---|---|---|---|", *rows, *([""] if scores else []), *scores]


def _graph(fitted: Fitted) -> list[str]:
    rows = [
        f"| {one.name} | {one.kind} | {one.level} | {one.branches} | {one.inputs} | {one.outputs} | {one.parameters} |"
        for one in fitted.model.graph.nodes()
    ]
    tables = sum(parameter.numel() for parameter in fitted.model.encoder.parameters())
    head = "| block | kind | level | branches | in | out | parameters |"
    total = f"| all | | | | | | {fitted.parameters} |"
    return [head, "|---|---|---|---|---|---|---|", f"| embeddings | table | | | | | {tables} |", *rows, total]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _number(value: float | None) -> str:
    return "not available" if value is None else f"{value:.5f}"
