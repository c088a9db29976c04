"""Training: one recipe, one window, one seed, one set of weights."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict

import torch
from torch import Tensor

from components.errors import TrainingError, TrainingInterruptedError
from components.models import checkpoint
from components.models.batches import batches
from components.models.checkpoint import Checkpoints, State
from components.models.compiled import compiled
from components.models.curves import LossSums
from components.models.fields import InputSpec, Vocabularies
from components.models.fitted import Fitted, Ranker
from components.models.loading import Window, load, slices, survey
from components.models.losses import MultiTaskLoss, positive_weights
from components.models.optimizer import Optimizer
from components.models.parallel import team
from components.models.settings import ModelRecipe, Task, TrainSettings
from components.models.stopping import EarlyStopping
from components.models.updates import Setup, evaluate, one_step
from components.models.warm import adopt, require_alike

log = logging.getLogger("mfh")

# Called after every step with the step (from 1), the most steps there may be, and the batch's loss: a scalar on the
# training device, so that a caller who does not read it does not wait for it.
OnStep = Callable[[int, int, Tensor], None]


def fit(
    recipe: ModelRecipe,
    train: TrainSettings,
    tasks: tuple[Task, ...],
    group_names: tuple[str, ...],
    spec: InputSpec,
    window: Window,
    valid: Window | None = None,
    *,
    start: Fitted | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train a model.

    The same arguments give the same weights to the bit on one kind of machine, wherever the window lies (in memory or
    streamed), whether or not the training was interrupted and resumed. Among several processes (``components.models.
    parallel``) each trains its share of every batch and all end with the same weights.

    Args:
        recipe: Network kind and sizes.
        train: Optimiser, embedding and stopping settings. With ``patience`` above 0 training ends by the rule of
            ``components.models.stopping``, and the weights are those of the best evaluation.
        tasks: m behaviours, in the order of the outputs.
        group_names: k groups, least active first.
        spec: What the model reads.
        window: The rows: spec's columns, ``group`` (0 to k - 1), one label column per task (null = not recorded).
        valid: Rows for the validation losses, the same columns; they choose the weights only with ``patience``.
        start: A model of the same recipe to begin from (``components.models.warm``), None for fresh weights.
        checkpoints: Where to keep the state every ``checkpoint_steps`` steps and on SIGTERM, and to resume from.
        on_step: Called after every step.

    Returns:
        The model with its curves and warnings.

    Raises:
        TrainingError: When settings conflict, there is no row or no label at all, a label is out of range, or a loss
            is not finite.
        TrainingInterruptedError: On SIGTERM, after the state was written.
        CheckpointError: When the newest checkpoint is of another training.
        SourceError: When a column is missing or can not be read.
    """
    began = time.monotonic()
    device = training_device(train)
    require_trainable(train, tasks, valid)
    if start is not None:
        require_alike(start, recipe, train, tasks, group_names, spec)

    with ExitStack() as stack:
        # Build: the rows, then the model and all that changes with it.
        rows, vocab = survey(window, spec, train.min_id_count)
        common = (spec, vocab, tasks, len(group_names), train.resident_mb, device)
        data = stack.enter_context(load(window, rows, *common))
        held = None
        if valid is not None:
            held = stack.enter_context(load(valid, sum(part.num_rows for part in slices(valid)), *common))
        setup = Setup(train, tasks, group_names, data, held, team(), device)
        state = build(setup, recipe, spec, vocab)

        # Start: from yesterday's weights, or from where this very training was interrupted.
        if start is not None:
            taken = adopt(state.model, vocab, start)
            log.info("training starts warm embeddings=%d", taken)
        identity = identify(setup, recipe, spec, vocab, start) if checkpoints else {}
        if checkpoints and checkpoint.resume(checkpoints, state, identity):
            log.info("training resumes step=%d of=%d", state.step, setup.steps)
            # Sums of losses were those of all processes.
            setup.team.keep_on_first(state.sums)

        # Train: step by step until the last epoch or the rule ends it.
        stack.enter_context(compiled(state.model.network, train.compile))
        stack.enter_context(setup.team.shared_rows(state.model.encoder))
        asked = stack.enter_context(checkpoint.end_requests())
        while state.step < setup.steps and not ended(state):
            with closing(epoch_batches(setup, state.step)) as left:
                for words, present in left:
                    loss, stop = one_step(setup, state, words, present, asked())
                    if on_step is not None:
                        on_step(state.step, setup.steps, loss)
                    if setup.evaluates(state.step):
                        evaluate(setup, state)
                    due = train.checkpoint_steps and state.step % train.checkpoint_steps == 0
                    if checkpoints and (stop or due):
                        keep(setup, state, checkpoints, identity)
                    if stop:
                        raise interrupted(setup, state, checkpoints)
                    if ended(state):
                        break

        step = state.step if state.stopping is None else state.stopping.best_step
        state.settle()
    state.model.encoder.generator = None
    scores = () if state.stopping is None else tuple(state.stopping.scores)
    return Fitted(
        recipe,
        train,
        tasks,
        group_names,
        spec,
        vocab,
        state.model.eval(),
        history=tuple(state.history),
        warnings=(*constant_columns(vocab, spec), *data.tally.warnings(tasks, group_names)),
        rows=rows,
        step=step,
        scores=scores,
        seconds=time.monotonic() - began,
    )


def constant_columns(vocab: Vocabularies, spec: InputSpec) -> list[str]:
    """A sentence for the model card about every number that has one value in the whole window."""
    return [f"column {name!r} does not vary in the training window: it is read as 0" for name in vocab.constant(spec)]


def training_device(train: TrainSettings) -> torch.device:
    """The device that the settings and the machine allow.

    Args:
        train: ``device``.

    Returns:
        The device; of several GPUs the current one.

    Raises:
        TrainingError: When a GPU is asked for and none is usable.
    """
    if train.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if train.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("train.device is 'cuda' but no GPU is usable here; set it to 'auto' or 'cpu'")
    return torch.device(train.device)


def require_trainable(train: TrainSettings, tasks: tuple[Task, ...], valid: Window | None) -> None:
    """Refuse settings that conflict, before anything is read.

    Args:
        train: The settings.
        tasks: The behaviours.
        valid: Rows held out.

    Raises:
        TrainingError: When they do.
    """
    if not any(task.weight > 0 for task in tasks):
        raise TrainingError("every task has weight 0, so nothing would train; give one task a weight above 0")
    if train.patience and valid is None:
        raise TrainingError("train.patience asks for early stopping, which needs validation rows; give some, or set 0")


def build(setup: Setup, recipe: ModelRecipe, spec: InputSpec, vocab: Vocabularies) -> State:
    """A model with fresh weights, its loss and its optimizer.

    Args:
        setup: What stays as it is.
        recipe: Network kind and sizes.
        spec: What the model reads.
        vocab: Fitted on the window.

    Returns:
        The state before the first step.

    Raises:
        TrainingError: When the recipe's sizes make no graph.
    """
    train, tasks, groups, device = setup.train, setup.tasks, len(setup.group_names), setup.device
    # Initial weights are drawn on the CPU, so that a seed means the same ones on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        try:
            model = Ranker(recipe, train, spec, vocab, behaviours=len(tasks), facets=(groups,)).to(device)
        except ValueError as error:
            raise TrainingError(f"the sizes of {recipe.kind} make no graph: {error}") from error
    tally = setup.window.tally
    weights = positive_weights(tasks, torch.from_numpy(tally.positive), torch.from_numpy(tally.present))
    loss = MultiTaskLoss(tasks, train, weights).to(device)
    optimizer = Optimizer(model.network.parameters(), model.encoder, loss, train)
    state = State(model.train(), loss, optimizer, LossSums.zeros(groups, len(tasks), device))
    if train.patience and setup.valid is not None:
        state.stopping = EarlyStopping.over(train.patience, tasks, setup.valid.tally.constant_losses(tasks))
    return state


def identify(
    setup: Setup, recipe: ModelRecipe, spec: InputSpec, vocab: Vocabularies, start: Fitted | None
) -> dict[str, str]:
    """What a checkpoint of this training belongs to: see :func:`components.models.checkpoint.digests`."""
    return checkpoint.digests(
        asdict(setup.train),
        recipe=asdict(recipe),
        tasks=[asdict(task) for task in setup.tasks],
        groups=setup.group_names,
        inputs=asdict(spec),
        vocabularies=vocab.to_json(spec),
        window=setup.window.sha256(),
        validation=None if setup.valid is None else setup.valid.sha256(),
        start=None if start is None else checkpoint.weights_digest(start.model),
    )


def epoch_batches(setup: Setup, step: int) -> Generator[tuple[Tensor, int], None, None]:
    """What is left, after ``step`` steps, of the epoch at hand: packed rows and the labels present in them."""
    epoch, done = divmod(step, setup.steps_per_epoch)
    train = setup.train
    return batches(setup.window.shelf, train.batch_size, seed=train.seed, epoch=epoch, skip=done)


def ended(state: State) -> bool:
    """Whether early stopping has ended the training."""
    return state.stopping is not None and state.stopping.ended


def keep(setup: Setup, state: State, checkpoints: Checkpoints, identity: dict[str, str]) -> None:
    """Write a checkpoint: the first process does, with the losses of all."""
    setup.team.share_losses(state.sums)
    setup.team.keep_on_first(state.sums)
    if setup.team.rank == 0:
        checkpoint.save(checkpoints, state, identity)
    setup.team.wait()


def interrupted(setup: Setup, state: State, checkpoints: Checkpoints | None) -> TrainingInterruptedError:
    """The error that ends a training that was asked to end."""
    kept = "its state is in a checkpoint, and running the step again goes on from there"
    lost = "there was no place for a checkpoint, so running it again starts from the beginning"
    return TrainingInterruptedError(
        f"training was asked to end (SIGTERM) after step {state.step} of {setup.steps}; {kept if checkpoints else lost}"
    )
