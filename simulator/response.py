"""The response model of the rollouts: what users do with what they are shown, fitted on the log.

Stage 1 (``appeal``) predicts skips, seconds and interactions of a (user, video) pair, whatever came before it.
Stage 2 predicts leaving from the session's state, and returning from the whole day. Both read *predicted*
appeal, out of fold, instead of the noisy watching that a log shows: otherwise the effect of a better ranking
on leaving and returning is attenuated (Fuller 1987, section 1.1: errors in variables).

Estimand: E[outcome | features, state] under the log's conditions. Assumptions: given the features, what was
shown does not depend on what would have been done with it (training is weighted by clipped inverse propensities
where they are known), users do not influence each other, and the relation holds for rankings that the log
contains few of. Unit: the user; every fit is cross-fitted over folds of users (Chernozhukov et al. 2018,
The Econometrics Journal 21, section 3), and ensemble members differ by seed and by a bootstrap of users.

What is cross-fitted (``response_fit``): the networks, the leave and the return coefficients that a user's
rollouts use saw no row of that user. Two things are pooled over folds: the appeal that stage 2 is fitted on comes
from networks that exclude the row's own user only, and one recalibrating shift per member is computed over all.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from scipy.special import expit

from components.errors import BundleError
from simulator import draws
from simulator.appeal import FloatArray, Network, Predictions, WatchScale, predict
from simulator.logit import GroupLogit, Recalibration
from simulator.metrics import GROUPS

_WEIGHTS, _SETTINGS = "response.safetensors", "response.json"


@dataclass(frozen=True)
class ResponseSettings:
    """How the response model is fitted.

    Attributes:
        seed: Of folds, bootstraps, initial weights and batches.
        folds: Folds of users, at least 2.
        ensemble: Members; one member has no bootstrap.
        epochs: Passes over the rows in stage 1.
        skip_below_s: A video watched for less counts as skipped; the feed's own rule.
    """

    seed: int = 11
    folds: int = 2
    ensemble: int = 2
    epochs: int = 3
    skip_below_s: float = 3.0


@dataclass(frozen=True)
class Member:
    """One ensemble member's constants; its networks and coefficients are per fold.

    Attributes:
        networks: One per fold, trained without that fold's users.
        leave: One per fold, likewise.
        returning: One per fold, or None (see ``ResponseModel.return_reason``).
        scale: One per fold: constants of the watch likelihood.
        leave_fit: Out-of-fold recalibration; its shift is applied.
        return_fit: The same for returning, None without a return model.
    """

    networks: tuple[Network, ...]
    leave: tuple[GroupLogit, ...]
    returning: tuple[GroupLogit, ...] | None
    scale: tuple[WatchScale, ...]
    leave_fit: Recalibration
    return_fit: Recalibration | None


@dataclass(frozen=True)
class Pairs:
    """N (user, video) pairs to predict, with what ``ResponseData`` holds of them.

    Attributes:
        user_id: int64 [N].
        group: int8 [N].
        user_features: float32 [N, Fu].
        video_features: float32 [N, Fv].
        duration_s: float64 [N] seconds, NaN or 0 where unknown.
    """

    user_id: NDArray[np.int64]
    group: NDArray[np.int8]
    user_features: NDArray[np.float32]
    video_features: NDArray[np.float32]
    duration_s: FloatArray


@dataclass(frozen=True)
class ResponseModel:
    """A fitted response model; ``session.rollout`` asks it everything.

    Attributes:
        settings: How it was fitted.
        behaviours: Interactions that it predicts.
        unfitted: Behaviours that it can not predict, each with the reason.
        members: The ensemble.
        return_reason: Why there is no return model, None when there is one.
    """

    settings: ResponseSettings
    behaviours: tuple[str, ...]
    unfitted: Mapping[str, str]
    members: tuple[Member, ...]
    return_reason: str | None

    def fold(self, user_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: the fold whose fits may be used for each user, since they never saw that user."""
        return draws.bucket(self.settings.seed, "response fold", self.settings.folds, user_id)

    def appeal(self, member: int, pairs: Pairs) -> Predictions:
        """Stage 1 for N pairs, each by the fits without its user.

        Args:
            member: Ensemble member, from 0.
            pairs: N pairs.

        Returns:
            Predictions of N rows.
        """
        chosen = self.members[member]
        fold = self.fold(pairs.user_id)
        parts, order = [], []
        for f in range(self.settings.folds):
            rows = np.flatnonzero(fold == f)
            scale = chosen.scale[f]
            seconds = scale.duration(pairs.duration_s[rows])
            features = stage_1_features(
                pairs.user_features[rows], pairs.video_features[rows], seconds, pairs.group[rows]
            )
            parts.append(predict(chosen.networks[f], features, seconds, scale))
            order.append(rows)
        back = np.argsort(np.concatenate(order), kind="stable")
        columns = [np.concatenate(column)[back] for column in zip(*(vars(p).values() for p in parts), strict=True)]
        return Predictions(*columns)

    def seconds(
        self,
        member: int,
        fold: NDArray[np.int64],
        *,
        mean: FloatArray,
        sd: FloatArray,
        duration_s: FloatArray,
        noise: FloatArray,
    ) -> FloatArray:
        """Seconds watched of videos that are not skipped, for standard normal ``noise``.

        Args:
            member: Ensemble member.
            fold: int64 [N], each row's user's fold.
            mean: float64 [N], ``Predictions.log_share``.
            sd: float64 [N], ``Predictions.log_share_sd``.
            duration_s: float64 [N], known durations.
            noise: float64 [N].

        Returns:
            float64 [N] seconds.
        """
        cap = np.array([s.cap_share for s in self.members[member].scale])[fold]
        level = np.array([s.level for s in self.members[member].scale])[fold]
        drawn: FloatArray = np.minimum(np.exp(np.minimum(mean + sd * noise, 50.0)), cap) * duration_s * level
        return drawn

    def leave_probability(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], state: FloatArray
    ) -> FloatArray:
        """Probability of leaving after an impression.

        Args:
            member: Ensemble member.
            fold: int64 [N], each row's user's fold.
            group: int8 [N].
            state: float64 [N, len(LEAVE_STATE)], the state after the impression.

        Returns:
            float64 [N].
        """
        chosen = self.members[member]
        return _by_fold(chosen.leave, chosen.leave_fit.shift, fold, group, state)

    def return_probability(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], day: FloatArray
    ) -> FloatArray | None:
        """Probability of being active on the next day.

        Args:
            member: Ensemble member.
            fold: int64 [N], each user's fold.
            group: int8 [N].
            day: float64 [N, Fu + 4], rows of ``response_state.day_features``.

        Returns:
            float64 [N], or None without a return model.
        """
        chosen = self.members[member]
        if chosen.returning is None or chosen.return_fit is None:
            return None
        return _by_fold(chosen.returning, chosen.return_fit.shift, fold, group, day)

    def save(self) -> dict[str, bytes]:
        """The model as files: name to content, safetensors and JSON only."""
        tensors = {}
        for m, member in enumerate(self.members):
            for f in range(self.settings.folds):
                for name, tensor in member.networks[f].state_dict().items():
                    tensors[f"{m}.{f}.network.{name}"] = tensor.contiguous()
                tensors[f"{m}.{f}.leave"] = torch.from_numpy(member.leave[f].coefficients.copy())
                if member.returning is not None:
                    tensors[f"{m}.{f}.return"] = torch.from_numpy(member.returning[f].coefficients.copy())
        facts = {
            "settings": asdict(self.settings),
            "behaviours": self.behaviours,
            "unfitted": dict(self.unfitted),
            "return_reason": self.return_reason,
            "members": [
                {
                    "scale": [asdict(s) for s in member.scale],
                    "leave_fit": asdict(member.leave_fit),
                    "return_fit": member.return_fit and asdict(member.return_fit),
                }
                for member in self.members
            ],
        }
        return {_WEIGHTS: save(tensors), _SETTINGS: json.dumps(facts, indent=1, sort_keys=True).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> "ResponseModel":
        """Read what ``save`` wrote.

        Args:
            files: Name to content.

        Returns:
            The model; it predicts bit for bit what the saved one did.

        Raises:
            BundleError: When a file or a tensor is missing or does not fit.
        """
        try:
            tensors = load(files[_WEIGHTS])
            facts = json.loads(files[_SETTINGS])
            settings = ResponseSettings(**facts["settings"])
            members = tuple(
                _load_member(tensors, m, settings.folds, len(facts["behaviours"]), one)
                for m, one in enumerate(facts["members"])
            )
            return cls(settings, tuple(facts["behaviours"]), facts["unfitted"], members, facts["return_reason"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError(f"the response model can not be read: {error!r}; fit it again") from error


def stage_1_features(
    user: NDArray[np.float32], video: NDArray[np.float32], duration_s: FloatArray, group: NDArray[np.int8]
) -> FloatArray:
    """float64 [N, Fu + Fv + 1 + G]: both feature blocks, log duration, the group as indicators."""
    indicators = group[:, None] == np.arange(len(GROUPS))
    return np.column_stack([user, video, np.log(duration_s), indicators]).astype(np.float64)


def _by_fold(
    fits: tuple[GroupLogit, ...], shift: float, fold: NDArray[np.int64], group: NDArray[np.int8], x: FloatArray
) -> FloatArray:
    stacked = np.concatenate([fit.coefficients for fit in fits])
    logit = GroupLogit(stacked).logit(x, (fold * len(GROUPS) + group).astype(np.int64))
    probability: FloatArray = expit(logit + shift)
    return probability


def _load_member(
    tensors: dict[str, torch.Tensor], m: int, folds: int, behaviours: int, facts: dict[str, object]
) -> Member:
    networks = []
    for f in range(folds):
        prefix = f"{m}.{f}.network."
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        network = Network(len(state["centre"]), behaviours)
        network.load_state_dict(state)
        networks.append(network.eval())
    leave = tuple(GroupLogit(tensors[f"{m}.{f}.leave"].numpy()) for f in range(folds))
    returning = None
    if facts["return_fit"] is not None:
        returning = tuple(GroupLogit(tensors[f"{m}.{f}.return"].numpy()) for f in range(folds))
    return Member(
        networks=tuple(networks),
        leave=leave,
        returning=returning,
        scale=tuple(WatchScale(**s) for s in facts["scale"]),  # type: ignore[attr-defined]
        leave_fit=Recalibration(**facts["leave_fit"]),  # type: ignore[arg-type]
        return_fit=facts["return_fit"] and Recalibration(**facts["return_fit"]),  # type: ignore[arg-type]
    )
