"""What a user-level bootstrap of a relative lift costs: ours against ``scipy.stats.bootstrap``, in one run.

scipy gets the same users and fewer resamples, in small batches so that its memory stays bounded, and is scaled by
resamples, which its time is proportional to. Both sides give the percentile interval of mean(T) / mean(B) - 1 over the
same users, paired. Recorded figures of the same task at 1e6 users x 2,000 resamples on two such cores, measured
elsewhere: scipy 131 s, a hand-tuned C loop 1.7 s.

Claims: ``bootstrap.seconds``, ``bootstrap.over_scipy``, ``bootstrap.over_recorded_scipy``,
``bootstrap.over_recorded_c``, ``bootstrap.extra_memory``, ``bootstrap.agrees``.
"""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.claims import Claim, Record, record
from simulator.bootstrap import FEWEST_RESAMPLES, Draw, bootstrap, resample_paired
from simulator.inference import Effect, relative
from simulator.inference import paired as moments_of
from simulator.metrics import PairedSums

FloatArray = NDArray[np.float64]

TARGET_S = 6.0
TARGET_RATIO = 20.0
TARGET_USERS, TARGET_RESAMPLES = 1_000_000, 2_000
RECORDED_SCIPY_S = 131.0
RECORDED_C_S = 1.7
SCIPY_RESAMPLES = 20
SCIPY_BATCH = 5


def run(
    users: int = TARGET_USERS,
    resamples: int = TARGET_RESAMPLES,
    repeats: int = 3,
    threads: int = 2,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Record:
    """Measure both sides, in turn.

    Args:
        users: Users on our side.
        resamples: Resamples on our side.
        repeats: Repetitions of both sides; medians are reported.
        threads: Our threads.
        notify: Called with (done, total, what).

    Returns:
        Claims, and one row per repetition and side.
    """
    values = _users(users)
    _ours(_users(100), FEWEST_RESAMPLES, threads)
    rows: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {"ours": [], "scipy": []}
    effect, extra_kib = Effect(None), 0
    for repeat in range(repeats):
        notify(repeat, repeats, "bootstrap")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, effect = _timed(lambda: _ours(values, resamples, threads))
        if repeat == 0:
            # Growth of the process's peak, before scipy has raised it.
            extra_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        theirs = _timed(lambda: _scipy(values))[0]
        for side, side_s, count in (("ours", wall, resamples), ("scipy", theirs, SCIPY_RESAMPLES)):
            seconds[side].append(side_s)
            rows.append(
                {
                    "repeat": repeat,
                    "side": side,
                    "users": users,
                    "resamples": count,
                    "seconds": side_s,
                    "ns_per_user_and_resample": 1e9 * side_s / users / count,
                }
            )
    notify(repeats, repeats, "bootstrap")
    ours = statistics.median(seconds["ours"])
    scipy_s = statistics.median(seconds["scipy"]) * resamples / SCIPY_RESAMPLES
    return record(
        {
            "users": users,
            "resamples": resamples,
            "repeats": repeats,
            "threads": threads,
            "scipy_resamples": SCIPY_RESAMPLES,
            "scipy_batch": SCIPY_BATCH,
        },
        _claims(values, effect, ours=ours, scipy_s=scipy_s, size=users * resamples, extra_mib=extra_kib / 1024),
        rows,
    )


def _claims(
    values: tuple[NDArray[np.int64], FloatArray, FloatArray],
    effect: Effect,
    *,
    ours: float,
    scipy_s: float,
    size: int,
    extra_mib: float,
) -> list[Claim]:
    at_target = size / (TARGET_USERS * TARGET_RESAMPLES)
    reference = relative([moments_of(PairedSums.of(values[1], values[2]))], 0.95)
    assert effect.se is not None and reference.se is not None
    apart = effect.se / reference.se
    return [
        Claim(
            name="bootstrap.seconds",
            value=ours,
            unit="s",
            target=f"<= {TARGET_S * at_target:g}",
            holds=ours <= TARGET_S * at_target,
            how="exact: every user has a count of its own in every resample",
        ),
        Claim(
            name="bootstrap.over_scipy",
            value=scipy_s / ours,
            unit="x",
            target=f">= {TARGET_RATIO:g}",
            holds=scipy_s / ours >= TARGET_RATIO,
            how=f"scipy.stats.bootstrap with {SCIPY_RESAMPLES} resamples, scaled by resamples to {scipy_s:.0f} s",
        ),
        Claim(
            name="bootstrap.over_recorded_scipy",
            value=RECORDED_SCIPY_S * at_target / ours,
            unit="x",
            how=f"recorded: {RECORDED_SCIPY_S:g} s for 1e6 users x 2,000 resamples, scaled to this size",
        ),
        Claim(
            name="bootstrap.over_recorded_c",
            value=RECORDED_C_S * at_target / ours,
            unit="x",
            how=f"recorded: {RECORDED_C_S:g} s of a hand-tuned C loop for the same, scaled to this size",
        ),
        Claim(
            name="bootstrap.extra_memory",
            value=extra_mib,
            unit="MiB",
            how="growth of the process's peak memory during the first bootstrap, beside the users' values",
        ),
        Claim(
            name="bootstrap.agrees",
            value=apart,
            unit="x",
            target="0.9 to 1.1",
            holds=0.9 <= apart <= 1.1,
            how="standard deviation of the resampled lifts over the delta method's standard error",
        ),
    ]


def _users(count: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Skewed seconds of users in both arms, correlated as under common random numbers."""
    rng = np.random.default_rng(5)
    level = rng.gamma(1.5, 60.0, count)
    return np.arange(count), level * 1.05 + rng.gamma(1.0, 40.0, count), level + rng.gamma(1.0, 40.0, count)


def _ours(values: tuple[NDArray[np.int64], FloatArray, FloatArray], resamples: int, threads: int) -> Effect:
    return bootstrap([resample_paired(*values, Draw(1, resamples), threads)], 0.95, "relative")


def _scipy(values: tuple[NDArray[np.int64], FloatArray, FloatArray]) -> Any:
    return stats.bootstrap(
        values[1:],
        lambda t, b, axis: t.mean(axis=axis) / b.mean(axis=axis) - 1,
        paired=True,
        vectorized=True,
        n_resamples=SCIPY_RESAMPLES,
        batch=SCIPY_BATCH,
        method="percentile",
        rng=np.random.default_rng(1),
    )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
