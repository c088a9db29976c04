"""One update of the weights, and one evaluation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.models.batches import Shelf, keyed
from components.models.checkpoint import State
from components.models.curves import LossSums, records
from components.models.loading import Loaded
from components.models.parallel import Team
from components.models.settings import Task, TrainSettings
from components.models.step import accumulate

# Rows of one pass over validation rows.
EVALUATION_ROWS = 4_096


@dataclass(frozen=True)
class Setup:
    """What stays as it is while a model trains.

    Attributes:
        train: Optimiser and embedding settings.
        tasks: m behaviours.
        group_names: k groups.
        window: The rows that train.
        valid: The rows held out, None without any.
        team: The processes that train together.
        device: Where this one computes.
    """

    train: TrainSettings
    tasks: tuple[Task, ...]
    group_names: tuple[str, ...]
    window: Loaded
    valid: Loaded | None
    team: Team
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the window."""
        return -(-self.window.shelf.rows // self.train.batch_size)

    @property
    def steps(self) -> int:
        """The most steps that training can take."""
        return self.train.epochs * self.steps_per_epoch

    def evaluates(self, step: int) -> bool:
        """Whether losses are recorded after a step: at the end of an epoch, and within it when stopping early."""
        times = self.train.evaluations if self.train.patience else 1
        done = (step - 1) % self.steps_per_epoch + 1
        # Equal parts of an epoch, rounded up.
        return any(done == -(-self.steps_per_epoch * part // times) for part in range(1, times + 1))


def one_step(setup: Setup, state: State, words: Tensor, present: int, asked: bool) -> tuple[Tensor, bool]:
    """Move the weights by one batch.

    Args:
        setup: What stays as it is.
        state: Changed in place.
        words: Packed rows of the global batch, int32 [B, width].
        present: Labels present in it.
        asked: Whether this process has been asked to end.

    Returns:
        The batch's loss, a scalar over all processes, and whether any process has been asked to end.
    """
    train, model = setup.train, state.model
    epoch, done = divmod(state.step, setup.steps_per_epoch)
    name = f"epoch {epoch + 1}, batch {done + 1} of {setup.steps_per_epoch}"
    batch = setup.window.shelf.layout.unpack(setup.team.share(words))
    # Draws are keyed by (seed, step), and by the process, since each has other rows.
    model.encoder.generator = keyed(setup.device, train.seed, "embeddings", state.step, setup.team.rank)
    x = model.encoder(batch.index, batch.numeric, batch.history)
    if train.dropout:
        x = dropped(x, train.dropout, keyed(setup.device, train.seed, "dropout", state.step, setup.team.rank))
    state.optimizer.zero_grad()
    loss, entries = accumulate(
        model.network,
        state.loss,
        x,
        batch.cell,
        batch.labels,
        present=float(max(present, 1)),
        batch=name,
        precision=train.precision,
    )
    # Of tables that are updated by rows, the optimizer asks for the rows (see Team.shared_rows).
    modules = [model.network, state.loss, *([] if model.encoder.sparse else [model.encoder])]
    loss, stop = setup.team.sum_gradients(modules, loss, asked)
    state.optimizer.clip()
    state.optimizer.step()
    state.sums.add(entries, batch.labels, batch.cell)
    state.step += 1
    if train.averaging:
        state.move_average(train.averaging)
    return loss, stop


def dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout with a generator of its own: a share of the entries becomes 0, the rest grows by 1 / (1 - share)."""
    kept = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
    return x * kept.div_(1.0 - share)


def evaluate(setup: Setup, state: State) -> None:
    """Record the losses of the steps so far and of the validation rows, and ask the rule of early stopping.

    Args:
        setup: What stays as it is.
        state: Its curves, sums, best weights and rule are brought up to date.
    """
    setup.team.share_losses(state.sums)
    held = LossSums.zeros(len(setup.group_names), len(setup.tasks), setup.device)
    with state.averaged():
        if setup.valid is not None:
            validation_losses(state, setup.valid.shelf, setup.team, held)
        setup.team.share_losses(held)
        epoch = state.step / setup.steps_per_epoch
        found = records(epoch, state.step, setup.tasks, setup.group_names, state.sums, held)
        state.history += found
        state.sums = LossSums.zeros(len(setup.group_names), len(setup.tasks), setup.device)
        if state.stopping is not None and state.stopping.observe(state.step, found):
            state.keep_best()


def validation_losses(state: State, shelf: Shelf, processes: Team, sums: LossSums) -> None:
    """Add the losses of this process's share of the validation rows.

    Args:
        state: The model and its loss.
        shelf: The rows.
        processes: Who shares them.
        sums: Changed in place.
    """
    model = state.model.eval()
    with torch.no_grad():
        for words in shelf.in_order(EVALUATION_ROWS, processes.rank, processes.size):
            batch = shelf.layout.unpack(words)
            logits = model(batch.index, batch.numeric, batch.history, batch.cell)
            found = state.loss.forward(logits, batch.labels, 1.0, "the validation rows")
            sums.add(found.entries, batch.labels, batch.cell)
    model.train()
