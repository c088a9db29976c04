"""The held-out day's videos as arrays: both snapshot versions, what trends, and who is in the tail of creators."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.context import Context
from components.heldout import Heldout, load_heldout, video_arrays
from tests.small_lake import at, day_at, shown, write_day
from tests.test_heldout import DAY, LATE, context_of, edge_rows, write_heldout


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path)


def test_videos_are_those_of_both_versions(context: Context) -> None:
    write_heldout(context, edge_rows(), uploaded={12: LATE, 20: None})
    held = load_heldout(context, DAY, 0.0)
    videos = video_arrays(context, held, [])
    assert videos.video_id.tolist() == [11, 12, 13, 20] * 2 == held.videos["video_id"].to_pylist()
    assert videos.creator_id.tolist() == [1, 1, 1, 2] * 2
    assert videos.uploaded_us[[1, 3, 5, 7]].tolist() == [int(LATE.timestamp() * 1e6), -1] * 2
    assert videos.new_age_days == context.pipeline.groups.new_video_age_days


def counted(held: Heldout, counts: dict[int, list[float]]) -> Heldout:
    """The day with other counts of the last day's impressions, by version in the order of the ids."""
    column = pa.array(np.log1p([*counts[0], *counts[1]]), pa.float32())
    at = held.videos.column_names.index("video_impressions_1d")
    return replace(held, videos=held.videos.set_column(at, "video_impressions_1d", column))


def test_what_trends_is_at_the_top_of_its_own_snapshot(context: Context) -> None:
    ids = list(range(1, 201))
    write_heldout(context, [shown(one, one, at(DAY, 9)) for one in ids])
    held = load_heldout(context, DAY, 0.0)
    rising, falling = [float(one) for one in ids], [float(200 - one) for one in ids]
    found = video_arrays(context, counted(held, {0: rising, 1: falling}), []).trending
    # The 99th percentile of 1 to 200 lies between 198 and 199.
    assert np.flatnonzero(found[:200]).tolist() == [198, 199]
    assert np.flatnonzero(found[200:]).tolist() == [0, 1]
    # Where nothing was shown on the day before, nothing trends, though zero is the percentile.
    quiet = video_arrays(context, counted(held, {0: [0.0] * 200, 1: [0.0] * 199 + [1.0]}), []).trending
    assert np.flatnonzero(quiet).tolist() == [399]


def test_the_tail_is_who_is_not_in_the_shortest_list_with_four_fifths(context: Context) -> None:
    # Creators 1 and 2 have 8 of 10 impressions in the window; 3 and 4 the rest, and 5 none at all.
    shares = {11: 5, 21: 3, 31: 1, 41: 1}
    window = [day_at(1), day_at(2)]
    seen = [video for video, count in shares.items() for _ in range(count)]
    for one, half in zip(window, (seen[::2], seen[1::2]), strict=True):
        write_day(context, one, [shown(user, video, at(one, 9)) for user, video in enumerate(half)])
    write_heldout(context, [shown(1, video, at(DAY, 9, n)) for n, video in enumerate((11, 21, 31, 41, 51))])
    held = load_heldout(context, DAY, 0.0)
    assert video_arrays(context, held, window).tail_creator.tolist() == [0, 0, 1, 1, 1] * 2
    # Without a window nobody is known to be in the head.
    assert video_arrays(context, held, []).tail_creator.tolist() == [1] * 10


def test_equal_creators_fall_into_the_head_by_id(context: Context) -> None:
    day, ids = day_at(1), (11, 21, 31, 41, 51)
    write_day(context, day, [shown(user, ids[user % 5], at(day, 9)) for user in range(10)])
    write_heldout(context, [shown(1, video, at(DAY, 9, n)) for n, video in enumerate(ids)])
    # Four of five hold exactly the four fifths.
    assert video_arrays(context, load_heldout(context, DAY, 0.0), [day]).tail_creator.tolist() == [0, 0, 0, 0, 1] * 2


def test_unknown_creators_are_neither_head_nor_tail_and_without_any_nobody_knows(context: Context) -> None:
    write_heldout(context, [shown(1, video, at(DAY, 9, n)) for n, video in enumerate((11, 21))])
    held = load_heldout(context, DAY, 0.0)
    place = held.videos.column_names.index("video_creator_id")
    for ids, expected in (([1, -1, 1, -1], [1, 0, 1, 0]), ([-1] * 4, [-1] * 4), ([None] * 4, [-1] * 4)):
        column = pa.array(ids, pa.int64())
        other = replace(held, videos=held.videos.set_column(place, "video_creator_id", column))
        assert video_arrays(context, other, []).tail_creator.tolist() == expected
