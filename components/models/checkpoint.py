"""What a training resumes from, and when it is asked to end.

Policy of resuming: weights and their mean, optimizer, learned loss weights, running loss sums, curves, the state of
early stopping and its best weights come from the checkpoint; everything else is computed anew from the same inputs,
which a checkpoint's identity proves. Orders of rows and dropout are keyed by (seed, step) and need no state. On a CPU
an interrupted and resumed training ends with the bits of an undisturbed one.
"""

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.errors import CheckpointError
from components.models.curves import EpochLoss, LossSums
from components.models.fitted import Ranker
from components.models.losses import MultiTaskLoss
from components.models.optimizer import Optimizer
from components.models.stopping import EarlyStopping

FORMAT = 2

# Settings that say how a training runs, not what comes out of it.
RUNNING = ("checkpoint_steps", "resident_mb")


class Checkpoints(Protocol):
    """Where a training's checkpoints lie."""

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep the state after ``step`` steps; it is there as a whole or not at all. ``facts`` are of JSON types."""

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors (in host memory) and facts of the newest state that can be read, None where there is none."""


@dataclass
class State:
    """All that changes while a model trains.

    Attributes:
        model: The weights.
        loss: The loss over tasks, with its learned weights.
        optimizer: Moments.
        sums: Losses of the steps since the last evaluation.
        stopping: The state of early stopping, None without it.
        best: Weights of the evaluation with the lowest score, by their names in the model.
        average: Running mean of the parameters, in their order; empty without ``averaging``.
        step: Steps so far.
        history: Curves so far.
    """

    model: Ranker
    loss: MultiTaskLoss
    optimizer: Optimizer
    sums: LossSums
    stopping: EarlyStopping | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    average: list[Tensor] = field(default_factory=list)
    step: int = 0
    history: list[EpochLoss] = field(default_factory=list)

    def move_average(self, decay: float) -> None:
        """Let the mean follow the weights after a step.

        Args:
            decay: Of the mean; the first steps decay faster, by ``(1 + step) / (10 + step)``, so that fresh weights
                are soon forgotten.
        """
        weights = [parameter.detach() for parameter in self.model.parameters()]
        if not self.average:
            self.average = [weight.clone() for weight in weights]
            return
        torch._foreach_lerp_(self.average, weights, 1.0 - min(decay, (1 + self.step) / (10 + self.step)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the mean in the model's place, and the weights back at the end; without a mean they stay.

        Yields:
            Nothing.
        """
        weights = [parameter.detach().clone() for parameter in self.model.parameters()] if self.average else []
        self._put(self.average)
        try:
            yield
        finally:
            self._put(weights)

    def settle(self) -> None:
        """End with the weights of the best evaluation, else with the mean, else with the weights as they are."""
        if self.best:
            self.model.load_state_dict(self.best)
        else:
            self._put(self.average)

    def _put(self, tensors: list[Tensor]) -> None:
        if tensors:
            torch._foreach_copy_([parameter.detach() for parameter in self.model.parameters()], tensors)

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}


def digests(train: Mapping[str, Any], **parts: Any) -> dict[str, str]:
    """What a checkpoint belongs to, part by part, so that a mismatch can be named.

    Args:
        train: The training's settings as plain data.
        **parts: Recipe, tasks, inputs, hashes of the rows and of the start: JSON types.

    Returns:
        A hash per part.
    """
    settings = {name: value for name, value in train.items() if name not in RUNNING}
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True, default=str).encode()).hexdigest()
        for name, part in (("train", settings), *parts.items())
    }


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the names and values of a module's parameters."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save(checkpoints: Checkpoints, state: State, identity: Mapping[str, str]) -> None:
    """Write a state.

    Args:
        checkpoints: Where to.
        state: The state between two steps.
        identity: From :func:`digests`.
    """
    tensors = {
        **{f"model/{name}": tensor for name, tensor in state.model.state_dict().items()},
        **{f"loss/{name}": tensor for name, tensor in state.loss.state_dict().items()},
        **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},
        **{f"best/{name}": tensor for name, tensor in state.best.items()},
        **{f"average/{at}": tensor for at, tensor in enumerate(state.average)},
        "sums/loss": state.sums.loss,
        "sums/entries": state.sums.entries,
    }
    facts = {
        "format": FORMAT,
        "identity": dict(identity),
        "step": state.step,
        "history": [asdict(one) for one in state.history],
        "stopping": None if state.stopping is None else asdict(state.stopping),
    }
    checkpoints.save(state.step, {name: tensor.detach() for name, tensor in tensors.items()}, facts)


def resume(checkpoints: Checkpoints, state: State, identity: Mapping[str, str]) -> bool:
    """Bring a fresh state to where the newest checkpoint is.

    Args:
        checkpoints: Where they lie.
        state: As it was built; changed in place.
        identity: From :func:`digests`.

    Returns:
        Whether there was a checkpoint.

    Raises:
        CheckpointError: When the newest one is of another training or does not fit the model.
    """
    found = checkpoints.latest()
    if found is None:
        return False
    tensors, facts = found
    _require_same(facts, identity)
    names = ("model", "loss", "optimizer", "best", "average", "sums")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    device = next(state.model.parameters()).device
    try:
        state.model.load_state_dict(parts["model"])
        state.loss.load_state_dict(parts["loss"])
        state.optimizer.load(parts["optimizer"])
        state.sums.loss.copy_(parts["sums"]["loss"])
        state.sums.entries.copy_(parts["sums"]["entries"])
        state.history = [EpochLoss(**one) for one in facts["history"]]
        state.best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        state.average = [parts["average"][str(at)].to(device) for at in range(len(parts["average"]))]
        if state.stopping is not None:
            given = facts["stopping"]
            state.stopping = EarlyStopping(**given | {"scores": [(step, score) for step, score in given["scores"]]})
        state.step = int(facts["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model that resumes from it ({type(error).__name__}: {error}); remove it "
            "to train from the beginning"
        ) from error
    return True


def _require_same(facts: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"the checkpoint is of format {facts.get('format')}, this version reads {FORMAT}")
    recorded = facts.get("identity", {})
    if other := [name for name in identity if recorded.get(name) != identity[name]]:
        raise CheckpointError(
            f"the checkpoint of step {facts.get('step')} is of another training: it differs in {', '.join(other)}. "
            "Remove it to train from the beginning, or resume with what it was written with"
        )


@contextmanager
def end_requests() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM instead of dying of it, so that the step at hand can be finished and kept.

    The handler is installed in the main thread only, since no other may, and the one before comes back at the end.

    Yields:
        Tells whether the process has been asked to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        # None: a handler that was not installed from Python, which can not be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
