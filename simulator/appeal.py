"""Stage 1 of the response model: what a user does with a video.

A plain multi-layer perceptron on numeric features. It has no experts, no gates and no embedding of a user or
a video: nothing that an arm is made of, and nothing that knows a video by the arms' own noise.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr
from torch import Tensor, nn
from torch.nn import functional

from components.errors import TrainingError

FloatArray = NDArray[np.float64]

HIDDEN = (64, 64)
_BATCH = 512
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-4
_CLIP = 5.0
_SMALLEST_SHARE = 1e-3
# A probability of not skipping beyond this logit is as good as certain.
_SURE = 5.0


@dataclass(frozen=True)
class Predictions:
    """What stage 1 says of N (user, video) pairs.

    Attributes:
        skip: float64 [N], probability of a skip (watched for less than ``skip_below_s``).
        log_share: float64 [N], mean of ln(seconds watched / duration) of what is not skipped.
        log_share_sd: float64 [N], its standard deviation.
        interactions: float64 [N, B], probability of each behaviour.
        appeal: float64 [N, len(response_state.APPEALS)].
    """

    skip: FloatArray
    log_share: FloatArray
    log_share_sd: FloatArray
    interactions: FloatArray
    appeal: FloatArray


@dataclass(frozen=True)
class Shifts:
    """Logits added to predictions, so that the mean of every group's equals what the log shows of that group.

    The networks learn under weights (every group counts alike, clipped inverse propensities); what a mean over the
    users of a day shall be calibrated on is the log as it is.

    Attributes:
        skip: One per group.
        interactions: Per group, one per behaviour.
    """

    skip: tuple[float, ...]
    interactions: tuple[tuple[float, ...], ...]

    def apply(self, found: Predictions, group: NDArray[np.int8]) -> Predictions:
        """The predictions, shifted; appeal, which leaving and returning were fitted on, stays as it is.

        Args:
            found: Of N rows.
            group: int8 [N].

        Returns:
            Predictions of N rows.
        """
        skip: FloatArray = expit(logit(found.skip) + np.array(self.skip)[group])
        done: FloatArray = expit(logit(found.interactions) + np.array(self.interactions)[group])
        return replace(found, skip=skip, interactions=done)


@dataclass(frozen=True)
class WatchScale:
    """Constants of the watch likelihood, computed on the training rows.

    Attributes:
        cap_share: Watching is capped at this multiple of the duration.
        skip_s: Mean seconds watched of a skipped video.
        typical_duration_s: The median; stands in for an unknown or zero duration.
        knots: Log durations at which the levels are known.
        levels: Per group and knot, logged over expected seconds of what is not skipped, out of fold: the lognormal's
            mean made to fit the log of every group and length. Without it, arms that prefer long videos gain seconds
            that nobody watched.
    """

    cap_share: float
    skip_s: float
    typical_duration_s: float
    knots: tuple[float, ...] = (0.0,)
    levels: tuple[tuple[float, ...], ...] = ()

    def duration(self, duration_s: FloatArray) -> FloatArray:
        """float64 [N] durations in seconds with the unknown ones replaced."""
        known = np.isfinite(duration_s) & (duration_s > 0)
        return np.where(known, duration_s, self.typical_duration_s)

    def level(self, group: NDArray[np.int8], duration_s: FloatArray) -> FloatArray:
        """Factors of the seconds, linear between knots.

        Args:
            group: int8 [N].
            duration_s: float64 [N], known durations.

        Returns:
            float64 [N]; 1 without levels.
        """
        found = np.ones(len(group))
        for g, levels in enumerate(self.levels):
            mine = group == g
            found[mine] = np.interp(np.log(duration_s[mine]), self.knots, levels)
        return found


@dataclass(frozen=True)
class Inputs:
    """Training rows of stage 1, as arrays of N rows.

    Attributes:
        features: float64 [N, F], NaN where unknown.
        skip: int8 [N].
        log_share: float64 [N], ln(seconds watched / duration), any number where skipped.
        capped: bool [N], watched up to the cap or beyond: only "at least the cap" is known.
        interactions: int8 [N, B], -1 where not recorded.
        weight: float64 [N], not negative.
    """

    features: FloatArray
    skip: NDArray[np.int8]
    log_share: FloatArray
    capped: NDArray[np.bool_]
    interactions: NDArray[np.int8]
    weight: FloatArray


class Network(nn.Module):
    """Perceptron with one output per head: skip, log share, its log standard deviation, interactions."""

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, behaviours: int) -> None:
        super().__init__()
        sizes = (width, *HIDDEN, 3 + behaviours)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, F] (NaN = unknown) to raw heads [N, 3 + B]."""
        # An unknown feature is set to the mean; clipping keeps one odd counter from ruling a prediction.
        hidden = torch.nan_to_num((features - self.centre) / self.spread).clamp(-_CLIP, _CLIP)
        for layer in self.layers[:-1]:
            hidden = functional.gelu(layer(hidden))
        return cast(Tensor, self.layers[-1](hidden))


class _Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, algorithm 2).

    Written out because building torch's own first imports its compiler: seconds for a network that trains in one.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.steps = 0
        self._mean = [torch.zeros_like(p) for p in parameters]
        self._square = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], rate: float) -> None:
        self.steps += 1
        mean_part, square_part = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for value, gradient, mean, square in zip(self.parameters, gradients, self._mean, self._square, strict=True):
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            value.mul_(1 - rate * _WEIGHT_DECAY)
            value.addcdiv_(mean / mean_part, (square / square_part).sqrt_().add_(1e-8), value=-rate)


def fit_network(inputs: Inputs, log_cap: float, epochs: int, seed: int) -> Network:
    """Train one network by the joint likelihood of its heads.

    Likelihood of a row: Bernoulli(skip); if not skipped, ln(watch / duration) ~ Normal(mu, sigma) right-censored
    at ``log_cap`` (a capped lognormal: density below the cap, P(X >= cap) at it); Bernoulli for every recorded
    interaction. Minimised with AdamW, learning rate decaying linearly to zero.

    Args:
        inputs: Training rows.
        log_cap: ln of the cap on the watched share.
        epochs: Passes over the rows.
        seed: Of initial weights and batches; equal seeds and thread counts give equal weights.

    Returns:
        The trained network.

    Raises:
        TrainingError: When the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Network(inputs.features.shape[1], inputs.interactions.shape[1])
    features = torch.from_numpy(inputs.features.astype(np.float32))
    skip = torch.from_numpy(inputs.skip.astype(np.float32))
    share = torch.from_numpy(np.nan_to_num(inputs.log_share).astype(np.float32))
    capped = torch.from_numpy(inputs.capped)
    done = torch.from_numpy(inputs.interactions.astype(np.float32))
    weight = torch.from_numpy((inputs.weight / inputs.weight.mean()).astype(np.float32))
    _initialise(network, inputs, generator)
    rows = len(features)
    steps = epochs * -(-rows // _BATCH)
    adam = _Adam(list(network.parameters()))
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator)
        for start in range(0, rows, _BATCH):
            batch = order[start : start + _BATCH]
            heads = network(features[batch])
            row_loss = _loss(
                heads,
                skip=skip[batch],
                share=share[batch],
                capped=capped[batch],
                done=done[batch],
                log_cap=log_cap,
            )
            loss = (row_loss * weight[batch]).mean()
            if not torch.isfinite(loss):
                raise TrainingError(f"the response model's loss is not finite over {rows} rows; check its features")
            gradients = torch.autograd.grad(loss, adam.parameters)
            adam.step(gradients, _LEARNING_RATE * (1 - adam.steps / steps))
    return network.eval()


def predict(network: Network, features: FloatArray, duration_s: FloatArray, scale: WatchScale) -> Predictions:
    """Apply a trained network.

    Args:
        network: A fit.
        features: float64 [N, F], NaN where unknown.
        duration_s: float64 [N], known and positive (see ``WatchScale.duration``).
        scale: Constants of the watch likelihood.

    Returns:
        Predictions of N rows.
    """
    with torch.no_grad():
        heads = network(torch.from_numpy(features.astype(np.float32))).numpy().astype(np.float64)
    skip = expit(heads[:, 0])
    mean, sd = heads[:, 1], np.exp(_bounded(heads[:, 2]))
    length = np.log(duration_s / scale.typical_duration_s)
    appeal = np.column_stack([np.clip(-heads[:, 0], -_SURE, _SURE), length, length**2])
    return Predictions(skip, mean, sd, expit(heads[:, 3:]), appeal)


def expected_share(mean: FloatArray, sd: FloatArray, cap: float) -> FloatArray:
    """Limited expected value E[min(X, cap)] of a lognormal X (Klugman, Panjer and Willmot 2012, appendix A.5.1).

    Args:
        mean: float64 [N], mean of ln X.
        sd: float64 [N], standard deviation of ln X.
        cap: Largest value.

    Returns:
        float64 [N].
    """
    z = (np.log(cap) - mean) / sd
    # exp(mean + sd^2/2) overflows long before its product with the normal tail matters.
    below = np.exp(np.minimum(mean + sd**2 / 2, 50.0)) * ndtr(z - sd)
    limited: FloatArray = below + cap * ndtr(-z)
    return limited


def log_share_of(watch_s: FloatArray, duration_s: FloatArray) -> FloatArray:
    """float64 [N]: ln(watch / duration), bounded below so that a zero watch stays finite."""
    result: FloatArray = np.log(np.maximum(watch_s / duration_s, _SMALLEST_SHARE))
    return result


def _bounded(log_sd: FloatArray) -> FloatArray:
    return np.clip(log_sd, -3.0, 1.5)


def _loss(heads: Tensor, *, skip: Tensor, share: Tensor, capped: Tensor, done: Tensor, log_cap: float) -> Tensor:
    loss = functional.binary_cross_entropy_with_logits(heads[:, 0], skip, reduction="none")
    log_sd = heads[:, 2].clamp(-3.0, 1.5)
    sd = log_sd.exp()
    inside = 0.5 * ((share - heads[:, 1]) / sd) ** 2 + log_sd
    beyond = -torch.special.log_ndtr((heads[:, 1] - log_cap) / sd)
    loss = loss + (1 - skip) * torch.where(capped, beyond, inside)
    if done.shape[1]:
        known = (done >= 0).float()
        each = functional.binary_cross_entropy_with_logits(heads[:, 3:], done.clamp(min=0), reduction="none")
        loss = loss + (each * known).sum(dim=1)
    return loss


def _initialise(network: Network, inputs: Inputs, generator: torch.Generator) -> None:
    """Seeded weights; biases at the base rates, so that few epochs suffice for rare behaviours."""
    with np.errstate(all="ignore"):
        known = np.isfinite(inputs.features)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, inputs.features, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, (inputs.features - centre) ** 2, 0).sum(axis=0) / count)
    network.centre.copy_(torch.from_numpy(centre.astype(np.float32)))
    network.spread.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0).astype(np.float32)))
    kept = (inputs.skip == 0) & (inputs.weight > 0)
    shares = inputs.log_share[kept] if kept.any() else np.zeros(1)
    rates = [_log_odds(inputs.skip, inputs.weight)]
    behaviours = [_log_odds(column, inputs.weight) for column in inputs.interactions.T]
    bias = [*rates, float(shares.mean()), float(np.log(max(float(shares.std()), 0.1))), *behaviours]
    with torch.no_grad():
        for layer in network.layers:
            linear = cast(nn.Linear, layer)
            nn.init.kaiming_uniform_(linear.weight, a=5**0.5, generator=generator)
            linear.bias.zero_()
        last = cast(nn.Linear, network.layers[-1])
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor(bias, dtype=torch.float32))


def _log_odds(outcome: NDArray[np.int8], weight: FloatArray) -> float:
    known = outcome >= 0
    total = float(weight[known].sum())
    rate = (float(weight[known] @ outcome[known]) + 0.5) / (total + 1.0)
    return float(np.log(rate / (1 - rate)))
