"""Both arms of a day as the simulator asks them: a bundle's scores, fused into one by the day's weights."""

from dataclasses import replace
from datetime import date

import pyarrow as pa

from components.context import Context
from components.train import ROLES, Role, bundle_files
from simulator.metrics import GROUPS
from simulator.policy import Fusion, Ranker


def day_arms(context: Context, day: date, users: pa.Table, videos: pa.Table) -> dict[Role, Ranker]:
    """The arms of an interval day, under the day's weights.

    Args:
        context: Pipeline and settings.
        day: Interval day; both bundles must be in the lake, and the tuned weights where the pipeline tunes them.
        users: Rows with the users' model inputs.
        videos: Rows with the videos' model inputs.

    Returns:
        Both arms, over those rows.

    Raises:
        MissingPartitionError: When a bundle or the tuned weights are not in the lake.
    """
    fusions = day_fusions(context, day)
    return {role: replace(arm, fusion=fusions[role]) for role, arm in arms_of(context, day, users, videos).items()}


def arms_of(context: Context, day: date, users: pa.Table, videos: pa.Table) -> dict[Role, Ranker]:
    """The arms of an interval day under the weights of the pipeline's file; arguments as of ``day_arms``."""
    from components.models import bundle
    from components.models.scoring import PairScorer

    fusion = configured_fusion(context)
    bundles = {role: bundle.load(bundle_files(context.runs.get(f"model_{role}", day))) for role in ROLES}
    return {role: Ranker(PairScorer(fitted, users, videos), fusion) for role, fitted in bundles.items()}


def configured_fusion(context: Context) -> Fusion:
    """The weights that the pipeline's file gives, the same for every arm."""
    chosen = context.pipeline.simulator
    return Fusion(
        {str(task): weight for task, weight in chosen.fusion.items()},
        {
            GROUPS.index(group): {str(task): weight for task, weight in weights.items()}
            for group, weights in chosen.fusion_by_group.items()
        },
    )


def day_fusions(context: Context, day: date) -> dict[Role, Fusion]:
    """Each arm's weights: those of the file, or those that ``tune`` found for the day."""
    base = configured_fusion(context)
    if not context.pipeline.tunes_fusion:
        return dict.fromkeys(ROLES, base)
    found = context.runs.get("fusion", day).json("fusion.json")["arms"]
    return {
        role: replace(base, by_group={**base.by_group, **{GROUPS.index(g): w for g, w in found[role].items()}})
        for role in ROLES
    }
