"""The rule of promotion, as a pure function of the day's records: the verdict, then guardrails, then who decides.

The verdict already holds the experiment's guardrails (skip share and next-day return, ``simulator.decision``). Those
here are of what the experiment does not see: how well the model ranks, whether the simulator may be believed, and
whether the treatment loses against the champion that it would replace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from components.promotion_settings import PromotionSettings
from simulator.experiment import Experiment, Quality, Rung, Verdict

Alias = Literal["champion", "candidate", "challenger"]
State = Literal["kept", "breached", "unknown"]


@dataclass(frozen=True)
class Guardrail:
    """One condition beside the verdict. ``unknown`` keeps from serving like ``breached`` does."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True)
class Ruling:
    """Which alias the treatment has earned, and why in words."""

    alias: Alias
    reason: str
    guardrails: tuple[Guardrail, ...]


@dataclass(frozen=True)
class AgainstChampion:
    """What the second comparison found: quality on the same rows, and a verdict where the champion was rolled out."""

    version: str
    quality: tuple[Quality, ...]
    verdict: Verdict | None


def rule(experiment: Experiment, settings: PromotionSettings, champion: AgainstChampion | None = None) -> Ruling:
    """Decide which alias a day's treatment has earned.

    Args:
        experiment: The day's record, with verdict, quality of both arms, and trust ladder.
        settings: Guardrails and approval.
        champion: The second comparison; None where there was none, which guards nothing.

    Returns:
        ``champion`` when the verdict is *ship* and every guardrail is kept, ``candidate`` when a person has to
        approve of that, else ``challenger``.
    """
    found = tuple(_guardrails(experiment, settings, champion))
    broken = [one for one in found if one.state != "kept"]
    decision = experiment.verdict.decision
    if decision != "ship":
        return Ruling("challenger", f"the verdict is {decision}", found)
    if broken:
        words = "; ".join(f"{one.name} {one.state}: {one.detail}" for one in broken)
        return Ruling("challenger", f"the verdict is ship, but {words}", found)
    if settings.approval == "manual":
        return Ruling("candidate", "the verdict is ship, and promotion waits for approval", found)
    return Ruling("champion", "the verdict is ship and every guardrail is kept", found)


def _guardrails(
    experiment: Experiment, settings: PromotionSettings, champion: AgainstChampion | None
) -> list[Guardrail]:
    found = []
    if settings.max_quality_loss is not None:
        found.append(quality_guardrail("quality against the baseline", experiment.quality, settings.max_quality_loss))
        if champion is not None:
            rows = [*(one for one in experiment.quality if one.arm == "treatment"), *champion.quality]
            name = f"quality against champion {champion.version}"
            found.append(quality_guardrail(name, rows, settings.max_quality_loss))
    if champion is not None and champion.verdict is not None:
        # Losing is what keeps from serving. Having to win against both would ask for two experiments' evidence.
        state: State = "breached" if champion.verdict.decision == "hold" else "kept"
        found.append(Guardrail(f"rollouts against champion {champion.version}", state, champion.verdict.sentence))
    found += [_rung(name, experiment.trust) for name in settings.require_rungs]
    return found


def quality_guardrail(name: str, rows: Sequence[Quality], most: float) -> Guardrail:
    """Whether the treatment ranks about as well as the other arm, over all users, in every task that both could rank.

    Args:
        name: What to call it.
        rows: Measurements; those of the treatment and of one other arm.
        most: AUC that may be lost.

    Returns:
        ``breached`` when a task loses more, ``unknown`` when no task could be compared.
    """
    auc = {(one.arm == "treatment", one.task): one.value for one in rows if one.metric == "auc" and one.group == "all"}
    losses = {
        task: other - mine
        for (treated, task), mine in auc.items()
        if treated and mine is not None and (other := auc.get((False, task))) is not None
    }
    if not losses:
        return Guardrail(name, "unknown", "no task has an AUC of both models")
    worst = max(losses, key=lambda task: losses[task])
    detail = f"AUC of {worst} {-losses[worst]:+.4f}, at most {most:g} may be lost"
    return Guardrail(name, "breached" if losses[worst] > most else "kept", detail)


def _rung(wanted: str, trust: Sequence[Rung]) -> Guardrail:
    rung = next((one for one in trust if one.name.startswith(wanted)), None)
    if rung is None or rung.state == "missing":
        return Guardrail(f"trust rung {wanted}", "unknown", "it was not checked for this version of the simulator")
    return Guardrail(f"trust rung {wanted}", "kept" if rung.state == "passed" else "breached", rung.detail)
