"""Off-policy evaluation: what logged choices with known propensities say of a policy that made none of them.

``rounds`` holds logged decisions and reduces policies over candidate sets, ``sums`` their statistics per user, which
add up over chunks and shards, ``estimators`` turns these into values with intervals or reasons. ``replay`` builds
random candidate sets around uniform exposures, ``sessions`` evaluates sums over a session, ``open_bandit`` compares us
with a public library. Nothing here is ever an array of rounds x actions.
"""

from simulator.offpolicy.estimators import (
    ESTIMATORS,
    Estimator,
    Evaluation,
    Limits,
    Weights,
    contrast,
    evaluate,
    weights_of,
)
from simulator.offpolicy.replay import random_sets, set_propensity
from simulator.offpolicy.rounds import Candidates, Rounds, greedy, rounds_over
from simulator.offpolicy.sessions import (
    SESSION_ESTIMATORS,
    SessionEstimator,
    SessionEvaluation,
    SessionRounds,
    SessionSums,
    contrast_sessions,
    evaluate_sessions,
)
from simulator.offpolicy.sums import ClusterSums, Shrinkage, merge

__all__ = [
    "ESTIMATORS",
    "SESSION_ESTIMATORS",
    "Candidates",
    "ClusterSums",
    "Estimator",
    "Evaluation",
    "Limits",
    "Rounds",
    "SessionEstimator",
    "SessionEvaluation",
    "SessionRounds",
    "SessionSums",
    "Shrinkage",
    "Weights",
    "contrast",
    "contrast_sessions",
    "evaluate",
    "evaluate_sessions",
    "greedy",
    "merge",
    "random_sets",
    "rounds_over",
    "set_propensity",
    "weights_of",
]
