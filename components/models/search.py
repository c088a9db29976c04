"""The search of MTNAS: which route the tasks should share (Chen, Gu, Fu, arXiv 2009.00387).

The supernet is the dense network of :mod:`components.models.mtnas` with a gate for every kind of query. Each deeper
block and each tower has two multinomials: over the non-empty sets of outputs that it may read, and over the kinds of
its query. Weights and multinomials learn in turn: a route is drawn and the weights take a step under it; then several
routes are drawn and REINFORCE (Williams, *Machine Learning* 8, 1992) moves the multinomials' logits along
``(r - b) ∇ log p(route)``, where b is the running mean of the rewards. The result is the route of the largest logits;
``components.models.trainer`` trains its network from fresh weights.

Open in public sources and decided here:

- Rows are halved by a hash of their content, so that what trains weights never gives rewards, in any epoch, nor does
  anything outside the training window. Both halves give one batch in every turn.
- The reward of a route is the loss of the currently most likely route minus its own on the same rows. Batches differ by
  more than routes do, and the difference leaves that out.
- ``DRAWS`` routes a turn are compared on the same rows: what all routes share, level 0 and the first layer, is computed
  once for all of them, and there is no backward pass.
- ``r - b`` is divided by its root mean square in the turn: one route that is far off, of which there are many while
  the weights are fresh, would else outweigh what a hundred turns say about the others.
- For the first ``WARM_UP`` of the turns the multinomials stay uniform: rewards of untrained weights say which block
  happened to be trained first.
- Dropout of ids and inputs acts on the weights' steps alone.
"""

import logging
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, distributed, nn

from components.errors import ConfigError, TrainingError
from components.models import trainer
from components.models.batches import keyed, present_labels
from components.models.checkpoint import State
from components.models.fields import InputSpec
from components.models.loading import Window, load, survey
from components.models.mtnas import QUERIES, Choice, Logits, Route, RoutedNetwork, choice_of
from components.models.optimizer import AdamW, Optimizer
from components.models.parallel import team
from components.models.settings import ModelRecipe, SearchSettings, Task, TrainSettings
from components.models.step import PIECE_ROWS, plan
from components.models.switchers import mix
from components.models.updates import Setup, one_step

log = logging.getLogger("mfh")

# Routes that are compared on the rows of one turn.
DRAWS = 8
# Share of the turns in which only weights learn.
WARM_UP = 0.2
# Keeps a turn in which all routes are equal from a division by 0.
EPSILON = 1e-12
# A reader of more blocks has too many sets of them to learn about each.
MOST_BLOCKS = 10


@dataclass(frozen=True)
class Draws:
    """Routes as numbers, for N readers: the deeper blocks layer by layer, then the towers.

    Attributes:
        sets: int64 [K, N]; bit s of a set's number plus one says whether block s is read.
        queries: int64 [K, N], places in ``QUERIES``.
    """

    sets: Tensor
    queries: Tensor

    def kept(self, blocks: int) -> Tensor:
        """Which blocks each reader reads: bool [K, N, blocks]."""
        return ((self.sets.unsqueeze(-1) + 1) >> torch.arange(blocks)) % 2 == 1


class Policy:
    """Multinomials over routes, and how they learn.

    Args:
        search: The space, the step size, the baseline's decay.
        behaviours: m.
    """

    def __init__(self, search: SearchSettings, behaviours: int) -> None:
        self.search, self.behaviours = search, behaviours
        readers = (search.layers - 1) * search.blocks + behaviours
        self.sets = nn.Parameter(torch.zeros(readers, 2**search.blocks - 1))
        self.queries = nn.Parameter(torch.zeros(readers, len(QUERIES)))
        self.optimizer = AdamW([self.sets, self.queries], 0.0, search.learning_rate)
        self.baseline: float | None = None

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draw routes.

        Args:
            count: K.
            generator: Of the CPU.

        Returns:
            K independent routes.
        """
        with torch.no_grad():
            chances = [torch.softmax(logits, dim=1) for logits in (self.sets, self.queries)]
            return Draws(*(torch.multinomial(one, count, True, generator=generator).T for one in chances))

    def best(self) -> Draws:
        """The most likely route, as one draw."""
        return Draws(self.sets.argmax(1).unsqueeze(0), self.queries.argmax(1).unsqueeze(0))

    def learn(self, draws: Draws, rewards: Tensor) -> None:
        """Take a step along REINFORCE's estimate of the gradient of the expected reward.

        Args:
            draws: K routes that were drawn from this policy.
            rewards: float32 [K].
        """
        mean = float(rewards.mean())
        baseline = mean if self.baseline is None else self.baseline
        # A reader of one block has no gate, so that its query has had no say in the reward.
        gated = draws.kept(self.search.blocks).sum(-1) > 1
        chosen = _log_chances(self.sets, draws.sets) + _log_chances(self.queries, draws.queries) * gated
        advantages = rewards - baseline
        advantages = advantages / (advantages.square().mean().sqrt() + EPSILON)
        self.sets.grad = self.queries.grad = None
        (-advantages * chosen.sum(1)).mean().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        decay = self.search.baseline_decay
        self.baseline = decay * baseline + (1.0 - decay) * mean

    def route(self, draws: Draws) -> Route:
        """The first of the routes drawn, without the blocks that nothing reads."""
        blocks = self.search.blocks
        choices = [
            choice_of([block for block, read in enumerate(row) if read], QUERIES[query])
            for row, query in zip(draws.kept(blocks)[0].tolist(), draws.queries[0].tolist(), strict=True)
        ]
        deeper = [choices[at : at + blocks] for at in range(0, (self.search.layers - 1) * blocks, blocks)]
        return Route.pruned([[Choice((0,))] * blocks, *deeper], choices[-self.behaviours :])


def _log_chances(logits: Tensor, chosen: Tensor) -> Tensor:
    """Logarithms of the chances of what was chosen: logits [N, options], chosen [K, N], to [K, N]."""
    return torch.log_softmax(logits, dim=1).gather(1, chosen.T).T


class OpenMixture(nn.Module):
    """What R readers mix of the layer below, while it is open what they read.

    Args:
        readers: R.
        sources: S, blocks of the layer below.
        inputs: Width of z.
        width: d, width of the layer below.
    """

    def __init__(self, readers: int, sources: int, inputs: int, width: int) -> None:
        super().__init__()
        pairs = [reader for reader in range(readers) for _ in range(sources)]
        widths = {"input": inputs, "mean": width, "constant": 0}
        self.logits = nn.ModuleList([Logits(query, pairs, sources, widths[query]) for query in QUERIES])
        self.kept: Tensor
        self.query: Tensor
        self.register_buffer("kept", torch.ones(readers, sources, dtype=torch.bool), persistent=False)
        self.register_buffer("query", torch.zeros(readers, dtype=torch.int64), persistent=False)

    def forward(self, z: Tensor, hidden: Tensor) -> Tensor:
        """Mix by the choices at hand: see :meth:`components.models.mtnas.Mixture.forward`."""
        share = self.kept / self.kept.sum(1, keepdim=True)
        found = torch.stack([one(z, hidden, share) for one in self.logits])
        found = found.view(len(QUERIES), len(z), *self.kept.shape)
        logits = found.gather(0, self.query.view(1, 1, -1, 1).expand(1, *found.shape[1:])).squeeze(0)
        gates = torch.softmax(logits.masked_fill(~self.kept, -torch.inf), dim=-1)
        return mix(gates.unsqueeze(0), hidden.unsqueeze(0)).squeeze(0).transpose(0, 1)

    def each(self) -> list[int]:
        """Trained numbers of every reader's gates."""
        readers = len(self.kept)
        return [sum(parameter.numel() for parameter in self.parameters()) // readers] * readers


class Supernet(RoutedNetwork):
    """The network of every route of a recipe's space; :meth:`choose` says which one it is at the moment.

    Under a route its outputs are those of the route's own network with the same weights.
    """

    def mixture(self, choices: tuple[Choice, ...], sources: int, width: int) -> nn.Module:
        """See :meth:`RoutedNetwork.mixture`."""
        return OpenMixture(len(choices), sources, self.width, width)

    def choose(self, draws: Draws, at: int = 0) -> None:
        """Become the network of a route.

        Args:
            draws: Routes of this recipe's space.
            at: Which one of them.
        """
        mixtures = [cast(OpenMixture, mixture) for mixture in self.mixtures]
        readers = [len(mixture.kept) for mixture in mixtures]
        kept = torch.split(draws.kept(self.first.count)[at], readers)
        for mixture, sets, queries in zip(mixtures, kept, torch.split(draws.queries[at], readers), strict=True):
            mixture.kept.copy_(sets)
            mixture.query.copy_(queries)


def search(
    recipe: ModelRecipe,
    settings: TrainSettings,
    tasks: tuple[Task, ...],
    group_names: tuple[str, ...],
    spec: InputSpec,
    window: Window,
    *,
    on_step: trainer.OnStep | None = None,
) -> ModelRecipe:
    """Search the route of a recipe.

    The same arguments give the same route on one kind of machine. Among several processes each does its share of every
    batch, and all end with the same route. An interrupted search begins anew.

    Args:
        recipe: Of kind ``mtnas``; a route that it has is left out of account.
        settings: As for :func:`components.models.trainer.fit`; epochs are those of ``recipe.search``, and nothing stops
            early or is compiled.
        tasks: m behaviours.
        group_names: k groups.
        spec: What the model reads.
        window: The training window.
        on_step: Called after every step of the weights.

    Returns:
        The recipe with ``search.route`` filled in.

    Raises:
        ConfigError: When the recipe is of another kind, or its space is too large or contradicts its widths.
        TrainingError: When the window can not be trained on, or a loss is not finite.
        SourceError: When a column is missing or can not be read.
    """
    began = time.monotonic()
    if recipe.kind != "mtnas":
        raise ConfigError(f"only mtnas has routes to search, found a recipe of kind {recipe.kind!r}")
    if recipe.search.blocks > MOST_BLOCKS:
        raise ConfigError(f"search.blocks must be at most {MOST_BLOCKS} for a search, found {recipe.search.blocks}")
    settings = replace(settings, epochs=recipe.search.epochs, patience=0)
    trainer.require_trainable(settings, tasks, None)
    recipe = replace(recipe, search=replace(recipe.search, route=""))
    policy = Policy(recipe.search, len(tasks))
    with ExitStack() as stack:
        device = trainer.training_device(settings)
        rows, vocab = survey(window, spec, settings.min_id_count)
        common = (spec, vocab, tasks, len(group_names), settings.resident_mb, device)
        data = stack.enter_context(load(window, rows, *common))
        # A turn reads a batch of both halves.
        turns = replace(settings, batch_size=2 * settings.batch_size)
        setup = Setup(turns, tasks, group_names, data, None, team(), device)
        state = trainer.build(setup, recipe, spec, vocab)
        supernet = build_supernet(setup, state, recipe)
        stack.enter_context(setup.team.shared_rows(state.model.encoder))
        for epoch in range(settings.epochs):
            with closing(trainer.epoch_batches(setup, epoch * setup.steps_per_epoch)) as left:
                for turn, (words, _) in enumerate(left, start=epoch * setup.steps_per_epoch):
                    loss = take_turn(setup, state, supernet, policy, words, turn)
                    if on_step is not None:
                        on_step(turn + 1, setup.steps, loss)
    if policy.baseline is None:
        raise TrainingError(f"a window of {rows} rows is too small to search on: no half of it could compare routes")
    route = policy.route(policy.best()).text()
    log.info("route found turns=%d seconds=%.1f route=%s", setup.steps, time.monotonic() - began, route)
    return replace(recipe, search=replace(recipe.search, route=route))


def build_supernet(setup: Setup, state: State, recipe: ModelRecipe) -> Supernet:
    """Put the supernet into the place of the model's network.

    Args:
        setup: What stays as it is.
        state: Its model and its optimizer are changed.
        recipe: The space.

    Returns:
        The supernet.
    """
    train, model = setup.train, state.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        group_input = (len(setup.group_names), train.field_embedding)
        supernet = Supernet(len(setup.tasks), recipe, model.encoder.width, group_input).to(setup.device)
    model.network = supernet.train()
    state.optimizer = Optimizer(supernet.parameters(), model.encoder, state.loss, train)
    return supernet


def first_half(words: Tensor, seed: int) -> Tensor:
    """Which rows train the weights; the others give rewards.

    Args:
        words: Packed rows, int32 [B, width].
        seed: The training's seed.

    Returns:
        bool [B]: a hash of each row's content, so that equal rows are in one half.
    """
    # Multiply-shift hashing: the highest bit of a sum of products with random odd numbers, modulo 2^64.
    low, high = -(2**62), 2**62
    odd = torch.randint(low, high, (words.shape[1],), generator=keyed("cpu", seed, "halves")) * 2 + 1
    return (words.long() * odd.to(words.device)).sum(1) < 0


def take_turn(setup: Setup, state: State, supernet: Supernet, policy: Policy, words: Tensor, turn: int) -> Tensor:
    """Move the weights by one half of a batch under a route that is drawn, then the policy by the other half.

    Args:
        setup: What stays as it is.
        state: Changed in place.
        supernet: The model's network.
        policy: Draws the routes; changed in place.
        words: Packed rows, int32 [B, width].
        turn: Number of the turn, from 0.

    Returns:
        The loss of the weights' half, a scalar.
    """
    seed, first = setup.train.seed, first_half(words, setup.train.seed)
    loss = torch.zeros((), device=setup.device)
    if present := labels_in(setup, words[first]):
        supernet.choose(policy.draw(1, keyed("cpu", seed, "route of weights", turn)))
        loss, _ = one_step(setup, state, words[first], present, False)
    if turn >= WARM_UP * setup.steps and (present := labels_in(setup, words[~first])):
        draws, best = policy.draw(DRAWS, keyed("cpu", seed, "routes", turn)), policy.best()
        compared = Draws(torch.cat([best.sets, draws.sets]), torch.cat([best.queries, draws.queries]))
        found = losses(setup, state, supernet, compared, words[~first], present).cpu()
        policy.learn(draws, found[0] - found[1:])
    return loss


def labels_in(setup: Setup, words: Tensor) -> int:
    """How many labels packed rows have."""
    return int(present_labels(setup.window.shelf.layout, words).sum())


def losses(setup: Setup, state: State, supernet: Supernet, draws: Draws, words: Tensor, present: int) -> Tensor:
    """Losses of several routes on the same rows.

    Args:
        setup: What stays as it is.
        state: The model and its loss.
        supernet: The model's network.
        draws: K routes.
        words: Packed rows, int32 [B, width].
        present: Labels present in them.

    Returns:
        float32 [K], over all processes.
    """
    batch, model = setup.window.shelf.layout.unpack(setup.team.share(words)), state.model
    found = torch.zeros(len(draws.sets), device=setup.device)
    limit = PIECE_ROWS if setup.device.type == "cpu" else max(len(batch), 1)
    model.eval()
    with torch.no_grad():
        x = model.encoder(batch.index, batch.numeric, batch.history)
        for piece in plan(supernet, batch.cell, limit)[1]:
            rows = slice(piece.start, piece.stop)
            with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.train.precision == "bf16"):
                shared = supernet.below(x[rows], batch.cell[rows])
                logits = []
                for at in range(len(found)):
                    supernet.choose(draws, at)
                    logits.append(supernet.above(*shared).T.float())
            labels = batch.labels[rows]
            found += torch.stack([state.loss.forward(one, labels, present, "the search").total for one in logits])
    model.train()
    if setup.team.size > 1:
        distributed.all_reduce(found)
    return found
