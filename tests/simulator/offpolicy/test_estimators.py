import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from components.errors import ConfigError
from simulator.offpolicy import ESTIMATORS, ClusterSums, Estimator, Limits, Rounds, Shrinkage, contrast, evaluate, merge
from simulator.offpolicy.estimators import refusal

Floats = NDArray[np.float64]
ANY = Limits(effective=0.0, users=2)
LAMBDAS = Shrinkage(switch=2.0, dros=3.0)

# Three kinds of visitors meet four actions: the truth can be added up by hand.
KINDS = np.array([0.5, 0.3, 0.2])
LOGGING = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
TARGET = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0.0, 0.5, 0.5, 0.0]])
REWARD = np.array([[0.9, 0.5, 0.3, 0.2], [0.1, 0.3, 0.6, 0.8], [0.4, 0.6, 0.2, 0.7]])
TRUTH = float((KINDS[:, None] * TARGET * REWARD).sum())
MODEL = REWARD + np.array([[0.2, -0.1, 0.1, 0.0]])


def logged(
    rng: np.random.Generator, users: int, each: int = 5, target: Floats = TARGET, model: Floats | None = MODEL
) -> Rounds:
    """Rounds of users who share a mood that moves all their rewards."""
    rounds = users * each
    kind = rng.choice(3, rounds, p=KINDS)
    action = (rng.random(rounds)[:, None] > LOGGING[kind].cumsum(axis=1)).sum(axis=1)
    mood = np.repeat(rng.normal(0, 0.4, users), each)
    return Rounds(
        cluster=np.repeat(np.arange(users), each),
        reward=(rng.random(rounds) < REWARD[kind, action]) + mood,
        propensity=LOGGING[kind, action],
        target=target[kind, action],
        value=None if model is None else model[kind, action],
        expected=None if model is None else (target * model).sum(axis=1)[kind],
    )


def sums(rounds: Rounds, shrinkage: Shrinkage = LAMBDAS) -> ClusterSums:
    return ClusterSums.of(rounds, shrinkage)


def by_definition(rounds: Rounds) -> dict[Estimator, float]:
    assert rounds.value is not None
    assert rounds.expected is not None
    w = rounds.target / rounds.propensity
    error = rounds.reward - rounds.value
    return {
        "ips": float((w * rounds.reward).mean()),
        "snips": float((w * rounds.reward).mean() / w.mean()),
        "dm": float(rounds.expected.mean()),
        "dr": float((rounds.expected + w * error).mean()),
        "sndr": float((rounds.expected + w * error / w.mean()).mean()),
        "switch_dr": float((rounds.expected + np.where(w <= 2.0, w, 0) * error).mean()),
        "dros": float((rounds.expected + 3.0 * w / (w**2 + 3.0) * error).mean()),
    }


def test_values_are_those_of_the_definitions():
    rounds = logged(np.random.default_rng(1), 200)
    found = evaluate(sums(rounds), ANY, 0.95)
    for name, expected in by_definition(rounds).items():
        assert found.values[name].value == pytest.approx(expected, rel=1e-12), name
    assert set(found.values) == set(ESTIMATORS)


def test_limits_of_lambda_are_the_estimators_in_between():
    rounds = logged(np.random.default_rng(2), 100)
    least = evaluate(sums(rounds, Shrinkage(0.0, 0.0)), ANY, 0.95).values
    most = evaluate(sums(rounds, Shrinkage(np.inf, np.inf)), ANY, 0.95).values
    for name in ("switch_dr", "dros"):
        # Weight 0 is below every lambda, and adds nothing.
        assert least[name].value == pytest.approx(least["dm"].value, rel=1e-12)
        assert most[name].value == pytest.approx(most["dr"].value, rel=1e-12)


def test_chunks_and_shards_add_up_to_the_bit():
    rounds = logged(np.random.default_rng(3), 300)
    whole = sums(rounds)
    order = np.random.default_rng(4).permutation(300)
    shards = [sums(rounds.select(np.isin(rounds.cluster, part))) for part in np.array_split(order, 7)]
    for together in (merge(shards), sum(shards[1:], shards[0])):
        assert np.array_equal(together.cluster, whole.cluster)
        assert np.array_equal(together.sums, whole.sums)
        assert together.tail.key.tolist() == whole.tail.key.tolist()
        assert together.tail.count.tolist() == whole.tail.count.tolist()
        assert evaluate(together, ANY, 0.95).values == evaluate(whole, ANY, 0.95).values
    # Users split between chunks, in any order of rounds: equal but for the last bits.
    mixed = rounds.select(np.random.default_rng(5).permutation(len(rounds)))
    parts = [sums(mixed.select(slice(a, a + 100))) for a in range(0, len(rounds), 100)]
    np.testing.assert_allclose(merge(parts).sums, whole.sums, rtol=1e-12, atol=1e-12)


def test_sums_of_other_constants_do_not_mix():
    rounds = logged(np.random.default_rng(3), 3)
    with pytest.raises(ConfigError, match="lambdas"):
        sums(rounds) + sums(rounds, Shrinkage(1.0, 1.0))
    with pytest.raises(ConfigError, match="no sums"):
        merge([])
    with pytest.raises(ConfigError, match="lambda of dros"):
        Shrinkage(dros=-1.0)


def test_means_hit_the_truth_and_intervals_cover_it():
    runs, users = 400, 120
    rng = np.random.default_rng(11)
    low, high = stats.binom.ppf([0.0025, 0.9975], runs, 0.95)
    names: tuple[Estimator, ...] = ("ips", "snips", "dr", "sndr")
    covered, values = dict.fromkeys(names, 0), {name: np.empty(runs) for name in names}
    for run in range(runs):
        found = evaluate(sums(logged(rng, users)), ANY, 0.95).values
        for name in names:
            one = found[name]
            assert one.value is not None
            assert one.low is not None
            assert one.high is not None
            values[name][run] = one.value
            covered[name] += one.low <= TRUTH <= one.high
    for name in names:
        assert abs(values[name].mean() - TRUTH) < 4 * values[name].std() / np.sqrt(runs), name
        assert low <= covered[name] <= high, (name, covered[name])
    assert values["dr"].std() < values["ips"].std()


def test_rounds_of_one_user_count_as_one_user():
    """Five rounds of one mood: intervals of independent rounds would be too narrow."""
    rounds = logged(np.random.default_rng(6), 300, each=20)
    by_user = evaluate(sums(rounds), ANY, 0.95)
    alone = Rounds(np.arange(len(rounds)), rounds.reward, rounds.propensity, rounds.target)
    by_round = evaluate(sums(alone), ANY, 0.95)
    assert by_user.values["snips"].value == pytest.approx(by_round.values["snips"].value)
    assert by_user.values["snips"].se > 1.3 * by_round.values["snips"].se
    assert by_user.values["snips"].df == 299
    assert by_user.weights.effective_rounds == pytest.approx(by_round.weights.effective_rounds)
    assert by_user.weights.effective_users < 300


def test_differences_of_arms_are_paired_by_user():
    other = np.roll(TARGET, 1, axis=1)
    truth = TRUTH - float((KINDS[:, None] * other * REWARD).sum())
    runs, covered = 300, 0
    rng = np.random.default_rng(12)
    for _ in range(runs):
        state = rng.bit_generator.state
        t = sums(logged(rng, 100))
        rng.bit_generator.state = state
        b = sums(logged(rng, 100, target=other))
        one = contrast(t, b, ANY, 0.95)["dr"]
        assert one.low is not None
        assert one.high is not None
        covered += one.low <= truth <= one.high
    low, high = stats.binom.ppf([0.0025, 0.9975], runs, 0.95)
    assert low <= covered <= high


def test_equal_arms_differ_by_nothing_and_other_users_can_not_be_compared():
    one = sums(logged(np.random.default_rng(7), 50))
    same = contrast(one, one, ANY, 0.95)
    assert {effect.value for effect in same.values()} == {0.0}
    assert all(effect.se is None and "same for every user" in (effect.reason or "") for effect in same.values())
    fewer = sums(logged(np.random.default_rng(7), 40))
    assert "different users" in (contrast(one, fewer, ANY, 0.95)["ips"].reason or "")


def test_the_weights_are_described_as_they_are():
    rng = np.random.default_rng(8)
    rounds = logged(rng, 400)
    w = rounds.target / rounds.propensity
    found = evaluate(sums(rounds), ANY, 0.95).weights
    assert (found.rounds, found.users, found.matched) == (2_000, 400, int((w > 0).sum()))
    assert found.match_rate == pytest.approx((w > 0).mean())
    assert found.mean == pytest.approx(w.mean())
    assert found.largest == w.max()
    assert found.quantile_99 == pytest.approx(np.quantile(w, 0.99, method="inverted_cdf"), rel=0.004)
    assert found.top_share == pytest.approx(np.sort(w)[-20:].sum() / w.sum(), rel=0.004)
    assert found.effective_rounds == pytest.approx(w.sum() ** 2 / (w**2).sum())
    per_user = w.reshape(400, 5).sum(axis=1)
    assert found.effective_users == pytest.approx(per_user.sum() ** 2 / (per_user**2).sum())


def changed(**columns: object) -> Rounds:
    """Sound rounds of which the first has another value in some columns."""
    rounds = logged(np.random.default_rng(9), 60)
    arrays = {name: getattr(rounds, name).copy() for name in ("reward", "propensity", "target", "value", "expected")}
    for name, value in columns.items():
        arrays[name][0] = value
    return Rounds(rounds.cluster, **arrays)


WEIGHTED = tuple(name for name in ESTIMATORS if name != "dm")
MODELLED = tuple(name for name in ESTIMATORS if name not in ("ips", "snips"))


@pytest.mark.parametrize(
    ("columns", "refused", "words"),
    [
        ({"propensity": 0.0}, WEIGHTED, "1 of 300 rounds have a propensity of 0 or below, or above 1"),
        ({"propensity": -0.1}, WEIGHTED, "1 of 300 rounds have a propensity"),
        ({"propensity": 1.5}, WEIGHTED, "above 1"),
        ({"propensity": np.nan}, WEIGHTED, "the propensity is unknown in 1 of 300"),
        ({"propensity": 1e-300}, WEIGHTED, "the weights of 1 of 300 rounds overflow"),
        ({"target": np.nan}, ESTIMATORS, "no distribution in 1 of 300"),
        ({"target": 1.2}, ESTIMATORS, "no distribution"),
        ({"reward": np.inf}, WEIGHTED, "the reward is not finite in 1 of 300"),
        ({"value": np.nan}, MODELLED, "the reward model's values are not finite in 1 of 300"),
        ({"expected": np.inf}, MODELLED, "the reward model's values are not finite"),
    ],
)
def test_what_can_not_be_estimated_is_refused_in_words(columns, refused, words):
    found = evaluate(sums(changed(**({"target": 0.5} | columns))), ANY, 0.95)
    for name, effect in found.values.items():
        if name in refused:
            assert (effect.value, effect.low, effect.se) == (None, None, None), name
            assert words in (effect.reason or ""), name
        else:
            assert effect.value is not None, name


def test_no_weight_is_described_where_one_is_missing():
    found = evaluate(sums(changed(propensity=np.nan)), ANY, 0.95).weights
    assert found.rounds == 300
    assert {found.mean, found.match_rate, found.effective_rounds, found.quantile_99, found.top_share} == {None}


def test_little_is_refused_too():
    empty = sums(logged(np.random.default_rng(1), 3).select(slice(0, 0)))
    assert {effect.reason for effect in evaluate(empty, ANY, 0.95).values.values()} == {"there is no logged round"}
    rounds = logged(np.random.default_rng(1), 40)
    few = evaluate(sums(rounds), Limits(effective=1_000), 0.95).values
    assert few["dm"].value is not None
    assert "effective sample size is" in (few["ips"].reason or "")
    assert "below 1000" in (few["ips"].reason or "")
    never = Rounds(rounds.cluster, rounds.reward, rounds.propensity, np.zeros(len(rounds)))
    assert refusal(sums(never), "snips", ANY) == "no logged action of 200 rounds is one that the target takes"
    assert refusal(sums(never), "dr", ANY) == "there is no reward model"
    outside = Rounds(
        rounds.cluster, rounds.reward, rounds.propensity, rounds.target, unsupported=np.full(len(rounds), 0.1)
    )
    assert "10.00% of its choices" in (refusal(sums(outside), "ips", Limits()) or "")


def test_values_without_a_spread_stand_without_an_interval():
    rounds = logged(np.random.default_rng(1), 40)
    constant = Rounds(rounds.cluster, np.ones(len(rounds)), rounds.propensity, rounds.target)
    found = evaluate(sums(constant), ANY, 0.95).values
    assert found["snips"].value == 1.0
    assert found["snips"].low is None
    assert "same for every user" in (found["snips"].reason or "")
    # The weights' mean varies whatever the reward.
    assert found["ips"].low is not None
    nothing = Rounds(rounds.cluster, np.zeros(len(rounds)), rounds.propensity, rounds.target)
    assert evaluate(sums(nothing), ANY, 0.95).values["ips"].value == 0.0
    assert evaluate(sums(nothing), ANY, 0.95).values["ips"].se is None
    alone = Rounds(np.zeros(len(rounds), np.int64), rounds.reward, rounds.propensity, rounds.target)
    assert evaluate(sums(alone), ANY, 0.95).values["ips"].reason == "one user gives no interval"
    assert "an interval needs 100" in (
        evaluate(sums(rounds), Limits(effective=1.0, users=100), 0.95).values["ips"].reason or ""
    )


def test_huge_rewards_overflow_into_words():
    rounds = changed(reward=1e308, target=1.0, propensity=1e-9)
    assert evaluate(sums(rounds), ANY, 0.95).values["ips"].reason == "the weighted rewards overflow"


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ConfigError, match="reward has shape"):
        Rounds(np.arange(3), np.zeros(2), np.ones(3), np.ones(3))
    with pytest.raises(ConfigError, match="both value and expected"):
        Rounds(np.arange(3), np.zeros(3), np.ones(3), np.ones(3), value=np.ones(3))
