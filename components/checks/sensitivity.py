"""Rung V6: does the verdict survive other assumptions?

On a small world's day, MFH is compared with the popularity arm (a lift that is there) and with a half-trained single-
task model, under variations of what nobody can know: how strongly appeal moves leaving and returning, which members
the response model has, and how task scores are fused. Every variation shows its sign and its verdict.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from components.checks.rung import Found, Notify, State
from components.checks.worlds import DESIGN, Size, world_day
from components.heldout import session_arrays
from components.respond import load_response
from components.simulate import ranking
from components.steps import run_step
from simulator.analysis import metric_results
from simulator.decision import decide
from simulator.logit import GroupLogit
from simulator.policy import Fusion, Ranker
from simulator.response import Member, ResponseModel
from simulator.response_state import APPEALS, DAY_STATE, LEAVE_STATE
from simulator.serving import Ranking
from simulator.session import RolloutSettings, rollout

WORLD_SEED = DESIGN + 502
COMPARED = (("mfh", "popularity"), ("mfh", "single_half"))


def check_sensitivity(notify: Notify, size: Size | None = None) -> Found:
    """Vary the assumptions.

    Args:
        notify: Called with (done, total, what).
        size: Of the world.

    Returns:
        The rung: passed when sign and decision of every comparison are the same under all variations.
    """
    from components.checks.arms import BASELINE, make_arms
    from components.inputs import GROUPS
    from components.models import trainer
    from components.models.scoring import PairScorer

    size = size or Size()
    with world_day(WORLD_SEED, size) as day:
        pipeline = day.context.pipeline
        run_step(day.context, "respond", day.day)
        model = load_response(day.context.runs.get("response", day.day))
        sessions = session_arrays(day.context, day.held, np.arange(day.held.sessions.num_rows))
        popular = make_arms(day, (BASELINE,))[BASELINE].ranking
        scorers = {}
        for name, training, table in (
            ("mfh", replace(pipeline.train, epochs=4, patience=0), day.table),
            ("single_half", replace(pipeline.train, epochs=1, patience=0), day.table.slice(0, day.table.num_rows // 3)),
        ):
            recipe = pipeline.recipe(name.removesuffix("_half"))
            fitted = trainer.fit(recipe, training, pipeline.tasks, GROUPS, day.spec, table)
            scorers[name] = PairScorer(fitted, day.held.sessions, day.held.videos)
        weights = {str(task): weight for task, weight in pipeline.simulator.fusion.items()}

        def rankings(fusion: dict[str, float]) -> dict[str, Ranking]:
            learned = {name: ranking(Ranker(scorer, Fusion(fusion)), day.held) for name, scorer in scorers.items()}
            return {**learned, BASELINE: popular}

        rolled = pipeline.simulator
        settings = RolloutSettings(rolled.seed, rolled.rollouts, rolled.max_slots)
        half = replace(model, members=model.members[: (model.size + 1) // 2])
        variations: list[tuple[str, ResponseModel, dict[str, float], RolloutSettings]] = [
            ("as it is", model, weights, settings),
            ("other luck", model, weights, replace(settings, seed=settings.seed + 1)),
            ("half of the members", half, weights, settings),
        ]
        for factor in (0.5, 1.5):
            left, back = _scaled(model, leave=factor), _scaled(model, returning=factor)
            variations.append((f"appeal moves leaving x {factor}", left, weights, settings))
            variations.append((f"appeal moves returning x {factor}", back, weights, settings))
        for task, weight in weights.items():
            fused = [(factor, weights | {task: weight * factor}) for factor in (0.5, 2.0)]
            variations += [(f"fusion: {task} x {factor}", model, chosen, settings) for factor, chosen in fused]
        rows: list[dict[str, Any]] = []
        for done, (name, responding, fusion, luck) in enumerate(variations):
            notify(done, len(variations), name)
            outcomes = rollout(sessions, day.videos, rankings(fusion), responding, luck).outcomes
            rows += [_row(name, outcomes, pair, pipeline.decision) for pair in COMPARED]
        notify(len(variations), len(variations), "sensitivity")
    state, sentence = _judged(rows)
    config = {"world_seed": WORLD_SEED, "size": asdict(size), "variations": len(variations)}
    return Found("V6 sensitivity", state, sentence, config, rows)


def _scaled(model: ResponseModel, leave: float = 1.0, returning: float = 1.0) -> ResponseModel:
    """The model with other effects of appeal on leaving and returning, and the same probabilities at mean appeal."""
    liking = APPEALS.index("kept_logit")

    def change(fit: GroupLogit, column: int, factor: float, centre: float) -> GroupLogit:
        coefficients = fit.coefficients.copy()
        slope = coefficients[:, column].copy()
        coefficients[:, column] = factor * slope
        coefficients[:, 0] += (1 - factor) * slope * centre
        return GroupLogit(coefficients)

    def changed(member: Member) -> Member:
        centre = float(member.centre.appeal[liking])
        width = member.leave[0].coefficients.shape[1]
        at_leave = width - len(LEAVE_STATE) + LEAVE_STATE.index("kept_logit")
        found = replace(member, leave=tuple(change(fit, at_leave, leave, centre) for fit in member.leave))
        if member.returning is None:
            return found
        width = member.returning[0].coefficients.shape[1]
        at_return = width - len(DAY_STATE) + DAY_STATE.index("kept_logit")
        return replace(found, returning=tuple(change(fit, at_return, returning, centre) for fit in member.returning))

    return replace(model, members=tuple(changed(member) for member in model.members))


def _row(name: str, outcomes: pa.Table, pair: tuple[str, str], rule: Any) -> dict[str, Any]:
    treatment, baseline = pair
    arm = outcomes["arm"].to_numpy(zero_copy_only=False)
    kept = outcomes.filter(pa.array((arm == treatment) | (arm == baseline)))
    names = np.where(kept["arm"].to_numpy(zero_copy_only=False) == treatment, "treatment", "baseline")
    renamed = kept.set_column(kept.column_names.index("arm"), "arm", pa.array(names.tolist(), pa.string()))
    metrics = metric_results(renamed, rule)
    lift: Callable[[str, str], Any] = lambda metric, segment: next(  # noqa: E731
        one for one in metrics if one.name == metric and one.segment == segment
    )
    row: dict[str, Any] = {"variation": name, "treatment": treatment, "baseline": baseline}
    for segment in ("all", "new"):
        app = lift("app_time", segment).relative
        row |= {f"app_time_{segment}": app.value, f"low_{segment}": app.low, f"high_{segment}": app.high}
        row[f"return_{segment}"] = lift("return", segment).difference.value
    row["decision"] = decide(metrics, rule).decision
    return row


def _judged(rows: list[dict[str, Any]]) -> tuple[State, str]:
    changed = []
    for treatment, baseline in COMPARED:
        mine = [row for row in rows if (row["treatment"], row["baseline"]) == (treatment, baseline)]
        base = mine[0]
        for row in mine[1:]:
            flips = [s for s in ("all", "new") if (row[f"app_time_{s}"] or 0.0) * (base[f"app_time_{s}"] or 0.0) < 0]
            if flips or row["decision"] != base["decision"]:
                what = f"sign of {', '.join(flips)}" if flips else f"{base['decision']} becomes {row['decision']}"
                changed.append(f"{treatment} over {baseline}, {row['variation']}: {what}")
    count = len({row["variation"] for row in rows}) - 1
    if not changed:
        return "passed", f"Sign and verdict of {len(COMPARED)} comparisons are the same under {count} variations."
    return "failed", f"Under {count} variations of {len(COMPARED)} comparisons, {len(changed)} changed: {changed[0]}."
