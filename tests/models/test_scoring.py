import numpy as np
import pytest

from components.errors import SourceError
from components.models.scoring import PairScorer
from tests.models import planted


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(9)
    people, clips = planted.users(rng, 40), planted.videos(rng, 80)  # 20 videos are unseen
    pairs = (rng.integers(0, 40, 3_000), rng.integers(0, 80, 3_000))
    return people, clips, pairs, planted.context(rng, 3_000)


def test_pairs_score_like_the_joined_table(fitted, world):
    people, clips, pairs, request = world
    group = people["group"].to_numpy()[pairs[0]]
    scorer = PairScorer(fitted, people, clips)
    scores = scorer.score(*pairs, request, group)
    assert scorer.tasks == ("completion", "finish", "like")
    np.testing.assert_array_equal(scores, fitted.predict(planted.joined(people, clips, pairs, request)))


def test_a_shard_of_pairs_scores_the_same_bits(fitted, world):
    people, clips, pairs, request = world
    scorer = PairScorer(fitted, people, clips)
    group = people["group"].to_numpy()[pairs[0]]
    whole = scorer.score(*pairs, request, group)
    part = slice(700, 760)
    np.testing.assert_array_equal(
        whole[part], scorer.score(pairs[0][part], pairs[1][part], request.slice(700, 60), group[part])
    )


def test_the_group_asked_for_is_the_head_that_answers(fitted, world):
    people, clips, pairs, request = world
    scorer = PairScorer(fitted, people, clips)
    as_new, as_high = (scorer.score(*pairs, request, np.full(3_000, g)) for g in (0, 2))
    assert (as_new != as_high).any(1).mean() > 0.99


def test_lengths_and_missing_context_are_refused(fitted, world):
    people, clips, pairs, request = world
    scorer = PairScorer(fitted, people, clips)
    with pytest.raises(SourceError, match="differ in length"):
        scorer.score(*pairs, request.slice(1), np.zeros(3_000, np.int8))
    with pytest.raises(SourceError, match="context columns"):
        scorer.score(*pairs, None, np.zeros(3_000, np.int8))
