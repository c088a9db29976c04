"""Textbook parts equal tea-tasting's, a public library for A/B tests."""

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt

from simulator.cuped import CrossSums, adjusted_split
from simulator.inference import benjamini_hochberg, difference, holm, relative, sample_ratio, welch
from simulator.metrics import ArmSums

RNG = np.random.default_rng(31)
N = 900
VARIANT = (RNG.uniform(size=N) < 0.4).astype(int)
BEFORE = RNG.gamma(2, 30, N)
Y = 0.7 * BEFORE + RNG.gamma(2, 20, N) * (1 + 0.1 * VARIANT)
FRAME = pd.DataFrame({"variant": VARIANT, "y": Y, "before": BEFORE})


def library(**metrics):
    return tt.Experiment(**metrics).analyze(FRAME)


def arms(values):
    return values[VARIANT == 1], values[VARIANT == 0]


def test_welch_and_its_lift():
    reference = library(y=tt.Mean("y"))["y"]
    moments = [welch(*(ArmSums.of(v) for v in arms(Y)))]
    found = difference(moments, 0.95)
    assert (found.low, found.high) == pytest.approx((reference.effect_size_ci_lower, reference.effect_size_ci_upper))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert relative(moments, 0.95).value == pytest.approx(reference.rel_effect_size)


def test_cuped():
    """Ours also counts the fitted coefficient: its standard error is larger by sqrt((n - 2) / (n - 3))."""
    reference = library(y=tt.Mean("y", covariate="before"))["y"]
    (t, b), (x_t, x_b) = arms(Y), arms(BEFORE)
    moments = [adjusted_split(CrossSums.of([t], x_t[:, None]), CrossSums.of([b], x_b[:, None]))]
    found = difference(moments, 0.95)
    assert found.value == pytest.approx(reference.effect_size)
    half = (reference.effect_size_ci_upper - reference.effect_size_ci_lower) / 2
    assert (found.high - found.low) / 2 == pytest.approx(half * np.sqrt((N - 2) / (N - 3)))
    assert relative(moments, 0.95).value == pytest.approx(reference.rel_effect_size)
    assert moments[0].treatment == pytest.approx(reference.treatment)


def test_sample_ratio():
    reference = library(srm=tt.SampleRatio(2 / 3, method="norm", correction=False))["srm"]
    assert sample_ratio(int(VARIANT.sum()), int((1 - VARIANT).sum()), 0.4).p_value == pytest.approx(reference.pvalue)


def test_multiplicity():
    frame = FRAME.assign(**{f"m{i}": RNG.normal(size=N) + 0.04 * i * VARIANT for i in range(5)})
    result = tt.Experiment(**{f"m{i}": tt.Mean(f"m{i}") for i in range(5)}).analyze(frame)
    p = [result[f"m{i}"].pvalue for i in range(5)]
    results = {"all": result}
    names = [("all", f"m{i}") for i in range(5)]
    stepped = tt.adjust_fwer(results, arbitrary_dependence=True, method="bonferroni")
    found = tt.adjust_fdr(results, arbitrary_dependence=False)
    for reference, ours in ((stepped, holm(p)), (found, benjamini_hochberg(p))):
        by_name = {(row["comparison"], row["metric"]): row["pvalue_adj"] for row in reference.to_dicts()}
        assert ours == pytest.approx([by_name[name] for name in names])
