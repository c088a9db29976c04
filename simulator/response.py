"""The response model of the rollouts: what users do with what they are shown, fitted on the log.

Stage 1 (``appeal``) predicts skips, seconds and interactions of a (user, video) pair from the request's features
and from what the whole log says of the pair (``evidence``). Stage 2 predicts leaving from the session's state, and
returning from the whole day. Both read *predicted* appeal, out of fold, instead of the noisy watching that a log
shows: otherwise the effect of a better ranking on leaving and returning is attenuated (Fuller 1987, section 1.1:
errors in variables).

Estimand: E[outcome | features, evidence, state] under the log's conditions. Assumptions: given these, what was
shown does not depend on what would have been done with it (the logged production score is among them where the feed
has it, and training is weighted by clipped inverse propensities where they are known), users do not influence each
other, and the relation holds for rankings that the log contains few of. Unit: the user; every fit is cross-fitted
over folds of users (Chernozhukov et al. 2018, The Econometrics Journal 21, section 3), and ensemble members differ
by seed and by a bootstrap of users.

What is cross-fitted (``response_fit``): the networks, the leave and the return coefficients that a user's
rollouts use saw no row of that user. Three things are pooled over folds: the evidence of a row leaves out the row's
own user only, the appeal that stage 2 is fitted on comes from networks that exclude the row's own user only, and what
recalibrates a member (a few levels and shifts per group) is computed over all.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.special import expit

from components.errors import BundleError
from simulator import draws
from simulator.appeal import FloatArray, Network, Predictions, Shifts, WatchScale, predict
from simulator.evidence import Evidence
from simulator.logit import GroupLogit, Recalibration
from simulator.metrics import GROUPS
from simulator.response_data import Pairs
from simulator.response_state import Centre, user_columns, user_state
from simulator.yardstick import Yardstick

_WEIGHTS, _EVIDENCE, _SETTINGS = "response.safetensors", "evidence.safetensors", "response.json"


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
    epochs: int = 5
    skip_below_s: float = 3.0


@dataclass(frozen=True)
class Member:
    """One ensemble member's constants; its networks and coefficients are per fold.

    Attributes:
        networks: One per fold, trained without that fold's users.
        leave: One per fold, likewise.
        returning: One per fold, or None (see ``ResponseModel.return_reason``).
        scale: One per fold: constants of the watch likelihood.
        shifts: Of skips and interactions, to what the log shows of each group.
        centre: Where a session's running averages begin.
        leave_fit: Out-of-fold recalibration; its shift is applied.
        return_fit: The same for returning, None without a return model.
    """

    networks: tuple[Network, ...]
    leave: tuple[GroupLogit, ...]
    returning: tuple[GroupLogit, ...] | None
    scale: tuple[WatchScale, ...]
    shifts: Shifts
    centre: Centre
    leave_fit: Recalibration
    return_fit: Recalibration | None


@dataclass(frozen=True)
class ResponseModel:
    """A fitted response model; ``session.rollout`` asks it everything.

    Attributes:
        settings: How it was fitted.
        behaviours: Interactions that it predicts.
        unfitted: Behaviours that it can not predict, each with the reason.
        members: The ensemble.
        evidence: What the log says of pairs.
        yardstick: The videos by which users are compared.
        return_reason: Why there is no return model, None when there is one.
    """

    settings: ResponseSettings
    behaviours: tuple[str, ...]
    unfitted: Mapping[str, str]
    members: tuple[Member, ...]
    evidence: Evidence
    yardstick: Yardstick
    return_reason: str | None

    def fold(self, user_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: the fold whose fits may be used for each user, since they never saw that user."""
        return draws.bucket(self.settings.seed, "response fold", self.settings.folds, user_id)

    @property
    def size(self) -> int:
        """Ensemble members."""
        return len(self.members)

    def scales(self, member: int) -> tuple[WatchScale, ...]:
        """A member's constants of the watch likelihood, one per fold."""
        return self.members[member].scale

    def centre(self, member: int) -> Centre:
        """Where a session's running averages begin for a member."""
        return self.members[member].centre

    def appeal(self, member: int, pairs: Pairs, evidence: FloatArray | None = None) -> Predictions:
        """Stage 1 for N pairs, each by the fits without its user.

        Args:
            member: Ensemble member, from 0.
            pairs: N pairs.
            evidence: float64 [N, E], ``self.evidence.features(pairs)`` where it is at hand already.

        Returns:
            Predictions of N rows.
        """
        chosen = self.members[member]
        fold = self.fold(pairs.user_id)
        if evidence is None:
            evidence = self.evidence.features(pairs)
        parts, order = [], []
        for f in range(self.settings.folds):
            rows = np.flatnonzero(fold == f)
            scale = chosen.scale[f]
            seconds = scale.duration(pairs.duration_s[rows])
            features = stage_1_features(pairs.select(rows), evidence[rows], seconds)
            parts.append(predict(chosen.networks[f], features, seconds, scale))
            order.append(rows)
        back = np.argsort(np.concatenate(order), kind="stable")
        columns = [np.concatenate(column)[back] for column in zip(*(vars(p).values() for p in parts), strict=True)]
        return chosen.shifts.apply(Predictions(*columns), pairs.group)

    def user_columns(
        self,
        user_id: NDArray[np.int64],
        group: NDArray[np.int8],
        newness: NDArray[np.float32],
        user_features: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """What leaving and returning depend on of users: their features and the appeal of the yardstick for them.

        Args:
            user_id: int64 [N].
            group: int8 [N].
            newness: float32 [N].
            user_features: float32 [N, Fu].

        Returns:
            float32 [N, Fu + 1], ``response_state.user_columns``; the appeal is the mean over members.
        """
        pairs = self.yardstick.pairs(user_id, group, newness, user_features)
        evidence = self.evidence.features(pairs)
        appeal = np.mean([self.appeal(m, pairs, evidence).appeal for m in range(self.size)], axis=0)
        return user_columns(user_features, self.yardstick.mean(appeal))

    def leave_terms(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], user_features: NDArray[np.float32]
    ) -> tuple[FloatArray, FloatArray]:
        """The leave model of users: logit P(leaves) = offset + slopes . ``response_state.leave_state``.

        Args:
            member: Ensemble member.
            fold: int64 [N], each user's fold.
            group: int8 [N].
            user_features: float32 [N, Fu + 1], ``user_columns``.

        Returns:
            Offset float64 [N], with what the user's own features add, and slopes float64 [N, len(LEAVE_STATE)].
        """
        chosen = self.members[member]
        stacked, row = _stacked(chosen.leave, fold, group)
        own = user_features.shape[1]
        offset = GroupLogit(stacked.coefficients[:, : 1 + own]).logit(user_state(user_features), row)
        return offset + chosen.leave_fit.shift, stacked.coefficients[row, 1 + own :]

    def return_probability(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], day: FloatArray
    ) -> FloatArray | None:
        """Probability of being active on the next day.

        Args:
            member: Ensemble member.
            fold: int64 [N], each user's fold.
            group: int8 [N].
            day: float64 [N, Fu + 1 + len(DAY_STATE)], rows of ``response_state.day_features``.

        Returns:
            float64 [N], or None without a return model.
        """
        chosen = self.members[member]
        if chosen.returning is None or chosen.return_fit is None:
            return None
        stacked, row = _stacked(chosen.returning, fold, group)
        probability: FloatArray = expit(stacked.logit(day, row) + chosen.return_fit.shift)
        return probability

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
                    "shifts": asdict(member.shifts),
                    "centre": [*member.centre.appeal.tolist(), member.centre.watched_share],
                    "leave_fit": asdict(member.leave_fit),
                    "return_fit": member.return_fit and asdict(member.return_fit),
                }
                for member in self.members
            ],
        }
        looked_up = self.evidence.save() | {f"yardstick.{name}": a for name, a in self.yardstick.save().items()}
        evidence = {name: torch.from_numpy(a.copy()) for name, a in looked_up.items()}
        return {
            _WEIGHTS: save(tensors),
            _EVIDENCE: save(evidence),
            _SETTINGS: json.dumps(facts, indent=1, sort_keys=True).encode(),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> "ResponseModel":
        """Read what ``save`` wrote.

        Args:
            files: Name to content.

        Returns:
            The model; it predicts bit for bit what the saved one did.

        Raises:
            BundleError: When a file or a tensor is missing, damaged or does not fit.
        """
        try:
            tensors = load(files[_WEIGHTS])
            facts = json.loads(files[_SETTINGS])
            settings = ResponseSettings(**facts["settings"])
            members = tuple(
                _load_member(tensors, m, settings.folds, len(facts["behaviours"]), one)
                for m, one in enumerate(facts["members"])
            )
            arrays = {name: tensor.numpy() for name, tensor in load(files[_EVIDENCE]).items()}
            prefix = "yardstick."
            yardstick = Yardstick.load({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
            return cls(
                settings,
                tuple(facts["behaviours"]),
                facts["unfitted"],
                members,
                Evidence.load(arrays),
                yardstick,
                facts["return_reason"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise BundleError(f"the response model can not be read: {error!r}; fit it again") from error


def stage_1_features(pairs: Pairs, evidence: FloatArray, duration_s: FloatArray) -> FloatArray:
    """Inputs of the networks.

    What is known of the pair comes twice, the second time multiplied by the user's newness: new users respond to other
    things, and few of their rows are in a log, so the networks need not find the product by themselves.

    Args:
        pairs: N pairs.
        evidence: float64 [N, E], ``evidence.Evidence``.
        duration_s: float64 [N], known durations.

    Returns:
        float64 [N, F], NaN where unknown.
    """
    pair = np.column_stack([pairs.video_features, evidence, pairs.repeats, np.log(duration_s)])
    indicators = pairs.group[:, None] == np.arange(len(GROUPS))
    newness = pairs.newness[:, None]
    return np.column_stack([pairs.user_features, pair, indicators, newness, newness * pair]).astype(np.float64)


def _stacked(
    fits: tuple[GroupLogit, ...], fold: NDArray[np.int64], group: NDArray[np.int8]
) -> tuple[GroupLogit, NDArray[np.int64]]:
    """The fits of all folds under each other, and each row's place among them."""
    stacked = GroupLogit(np.concatenate([fit.coefficients for fit in fits]))
    return stacked, (fold * len(GROUPS) + group).astype(np.int64)


def _load_scale(facts: dict[str, Any]) -> WatchScale:
    levels = tuple(tuple(one) for one in facts["levels"])
    return WatchScale(**(facts | {"knots": tuple(facts["knots"]), "levels": levels}))


def _load_shifts(facts: dict[str, Any]) -> Shifts:
    return Shifts(tuple(facts["skip"]), tuple(tuple(one) for one in facts["interactions"]))


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
        scale=tuple(_load_scale(s) for s in facts["scale"]),  # type: ignore[attr-defined]
        shifts=_load_shifts(facts["shifts"]),  # type: ignore[arg-type]
        centre=Centre(np.array(facts["centre"][:-1]), facts["centre"][-1]),  # type: ignore[index]
        leave_fit=Recalibration(**facts["leave_fit"]),  # type: ignore[arg-type]
        return_fit=facts["return_fit"] and Recalibration(**facts["return_fit"]),  # type: ignore[arg-type]
    )
