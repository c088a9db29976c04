import numpy as np

from simulator.yardstick import SIZE, Yardstick


def test_every_user_meets_the_same_videos_in_order(planted):
    data = planted.data
    yardstick = Yardstick.of(data, seed=4)
    assert len(yardstick.video_id) == SIZE
    assert set(yardstick.video_id.tolist()) <= set(data.video_id.tolist())
    users = np.array([5, 9])
    pairs = yardstick.pairs(
        users, np.array([0, 2], np.int8), np.array([1.0, 0.0], np.float32), np.eye(2, 3, dtype=np.float32)
    )
    assert pairs.user_id.tolist() == [5] * SIZE + [9] * SIZE
    assert pairs.video_id.tolist() == [*yardstick.video_id.tolist()] * 2
    assert pairs.group.tolist() == [0] * SIZE + [2] * SIZE
    # Without a topic nobody's past with it enters.
    assert set(pairs.topic.tolist()) == {-1}
    appeal = np.column_stack([np.arange(2.0 * SIZE), np.full(2 * SIZE, np.nan)])
    assert yardstick.mean(appeal).tolist() == [(SIZE - 1) / 2, SIZE + (SIZE - 1) / 2]


def test_saved_is_loaded_and_the_seed_draws(planted):
    one = Yardstick.of(planted.data, seed=4)
    back = Yardstick.load(one.save())
    assert all(np.array_equal(getattr(one, name), getattr(back, name)) for name in one.save())
    assert not np.array_equal(one.video_id, Yardstick.of(planted.data, seed=5).video_id)
