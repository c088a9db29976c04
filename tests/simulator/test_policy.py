import numpy as np
import pytest

from components.errors import ConfigError
from simulator.policy import Fusion


def test_fusion_is_the_weighted_sum_by_task_name():
    scores = np.array([[0.5, 0.2, 9.0], [0.1, 0.9, 9.0]], dtype=np.float32)
    fused = Fusion({"skip": -0.5, "completion": 2.0}).rank(("completion", "skip", "like"), scores, np.zeros(2, np.int8))
    assert fused == pytest.approx([0.9, -0.25])
    assert fused.dtype == np.float64


def test_a_pairs_score_does_not_depend_on_its_batch():
    scores = np.random.default_rng(0).random((1001, 3)).astype(np.float32)
    fusion = Fusion({"a": 1.0, "b": 0.3, "c": -0.7})
    group = (np.arange(1001) % 3).astype(np.int8)
    whole = fusion.rank(("a", "b", "c"), scores, group)
    assert np.array_equal(whole[17:18], fusion.rank(("a", "b", "c"), scores[17:18], group[17:18]))


def test_a_group_of_its_own_weights_is_ranked_by_them_alone():
    scores = np.array([[0.5, 0.2], [0.5, 0.2], [0.5, 0.2]], dtype=np.float32)
    fusion = Fusion({"like": 1.0}, {0: {"skip": -1.0}, 2: {"like": 2.0, "skip": 5.0}})
    assert fusion.rank(("like", "skip"), scores, np.array([0, 1, 2], np.int8)) == pytest.approx([-0.2, 0.5, 2.0])
    with pytest.raises(ConfigError, match="skip"):
        fusion.rank(("like",), scores[:, :1], np.zeros(3, np.int8))


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (np.zeros((2, 1), np.float32), "shape"),
        (np.zeros(2, np.float32), "shape"),
        (np.array([[1, np.nan]], np.float32), "not finite"),
    ],
)
def test_bad_scores_are_refused(scores, text):
    with pytest.raises(ConfigError, match=text):
        Fusion({"like": 1.0, "skip": -1.0}).rank(("like", "skip"), scores, np.zeros(len(scores), np.int8))


def test_a_weighted_task_must_be_scored():
    with pytest.raises(ConfigError, match="like"):
        Fusion({"like": 1.0}).rank(("skip",), np.zeros((1, 1), np.float32), np.zeros(1, np.int8))
