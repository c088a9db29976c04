"""Faults of identity: keys that are lost, changed, shared or swapped."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.chaos.scene import Scene, chosen, hashed, numbers, replaced, rows_chosen, users_chosen
from components.feed.canonical import stable_ids
from components.feed.schema import DayTables

DEFAULT_USER = 0


def null_user_ids(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows have no user."""
    return scene.with_log(replaced(scene.log, "user_id", rows_chosen(scene.log, rate, rng), None))


def empty_user_ids(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows' user is the empty string, which is hashed like any other text: one user for all of them."""
    empty = stable_ids(pa.array([""]))[0]
    return scene.with_log(replaced(scene.log, "user_id", rows_chosen(scene.log, rate, rng), empty))


def default_user_id(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users' rows carry the user id 0."""
    return scene.with_log(replaced(scene.log, "user_id", users_chosen(scene.log, rate, rng), DEFAULT_USER))


def user_ids_rehashed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users have other ids in the log than in the users table."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(replaced(scene.log, "user_id", struck, hashed(numbers(scene.log, "user_id"))))


def all_user_ids_rehashed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users have other ids than yesterday in every table."""
    ids = numbers(scene.users, "user_id")
    ids = ids[chosen(len(ids), rate, rng)]

    def renamed(table: pa.Table) -> pa.Table:
        old = numbers(table, "user_id")
        return replaced(table, "user_id", np.isin(old, ids), hashed(old))

    requests = scene.tables.requests
    return replace(
        scene.with_log(renamed(scene.log)),
        users=renamed(scene.users),
        requests=None if requests is None else renamed(requests),
    )


def video_ids_rehashed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some videos have other ids in the log than in the videos table."""
    old = numbers(scene.log, "video_id")
    videos = np.unique(old)
    struck = np.isin(old, videos[chosen(len(videos), rate, rng)])
    return scene.with_log(replaced(scene.log, "video_id", struck, hashed(old)))


def user_ids_reused(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users of the log go by the id of another one; with a rate of 1 all are one user."""
    old = numbers(scene.log, "user_id")
    users = np.unique(old)
    struck = chosen(len(users), rate, rng)
    hosts = users[~struck] if not struck.all() else users[:1]
    new = np.where(struck, rng.choice(hosts, len(users)), users)
    return scene.with_log(replaced(scene.log, "user_id", np.isin(old, users[struck]), new[np.searchsorted(users, old)]))


def swapped_ids(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """User and video change places in some rows."""
    struck = rows_chosen(scene.log, rate, rng)
    user, video = scene.log["user_id"], scene.log["video_id"]
    return scene.with_log(replaced(replaced(scene.log, "user_id", struck, video), "video_id", struck, user))


def session_ids_rounded(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users' session ids went through a single-precision float."""
    struck = users_chosen(scene.log, rate, rng)
    rounded = numbers(scene.log, "session_id").astype(np.float32).astype(np.int64)
    return scene.with_log(replaced(scene.log, "session_id", struck, rounded))


def sessions_merged(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """All of a user's sessions of the day are one, counted through, for some users."""
    struck = users_chosen(scene.log, rate, rng)
    user = numbers(scene.log, "user_id")
    order = np.lexsort((numbers(scene.log, "event_time"), user))
    first = np.empty(len(user), dtype=np.int64)
    position = np.empty(len(user), dtype=np.int64)
    begins = np.searchsorted(user[order], user[order])
    position[order] = np.arange(len(user)) - begins
    first[order] = numbers(scene.log, "session_id")[order][begins]
    log = replaced(scene.log, "session_id", struck, first)
    return scene.with_log(replaced(log, "position", struck, position))


def sessions_split(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Every exposure of some users is a session of its own."""
    struck = users_chosen(scene.log, rate, rng)
    own = int(numbers(scene.log, "session_id").max(initial=0)) + 1 + np.arange(scene.log.num_rows)
    log = replaced(scene.log, "session_id", struck, own)
    return scene.with_log(replaced(log, "position", struck, 0))


def creators_merged(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some videos belong to creator 0, in the catalogue and in the log."""
    struck = rows_chosen(scene.videos, rate, rng)
    ids = scene.videos["video_id"].filter(pa.array(struck))
    in_log = pc.is_in(scene.log["video_id"], ids).to_numpy()
    videos = replaced(scene.videos, "creator_id", struck, 0)
    return replace(scene.with_log(replaced(scene.log, "creator_id", in_log, 0)), videos=videos)
