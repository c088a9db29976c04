"""What a feed's source check says: each part of the schema, what it maps to, and what its absence costs."""

from collections.abc import Mapping

from components.feed.schema import BEHAVIOURS, LOG, LOG_REQUIRED, VIDEOS
from components.feed.source import Finding

COSTS = {
    **{f"log.{name}": f"the task {name!r} can not be trained" for name in BEHAVIOURS},
    "log.finish": "derived: watched to the end",
    "log.skip": "derived: left early without finishing",
    "log.session_id": "sessions are cut at pauses instead (feed.session_gap_min)",
    "log.position": "positions are counted by time instead",
    "log.creator_id": "taken from the videos table, or unknown: no creator features",
    "log.duration_ms": "taken from the videos table; a row that was watched and has none is refused",
    "log.surface": "no split by surface, although surfaces differ in policy and in click rate",
    "log.is_random": "no uniform exposures are known: no replay of a policy on logged random exposures",
    "log.propensity": "the logging policy's propensities are unknown: no off-policy estimates",
    "users": "users are those of the day's log, without registration: no new users, no user attributes",
    "users.registered_at": "tenure is unknown: nobody counts as a new user",
    "users.attributes": "no static user features",
    "users.past": "no history from before the log: its first days know nobody",
    "videos": "videos are those of the day's log: no age, topic or videos that nobody was shown",
    "videos.uploaded_at": "age is unknown: no video counts as new",
    "videos.creator_id": "no creator features, unless the log names the creators",
    "videos.topic": "no topic features",
    "videos.duration_ms": "the log must carry the durations",
    "requests": "candidate sets were not logged: they are sampled from the day's exposures",
    "requests.scores": "the production score can not serve as a baseline",
    "requests.probabilities": "the logging policy of a slot is unknown: replay only where sets are random",
}

_PARTS = (
    *(f"log.{name}" for name in LOG.names),
    "users",
    "users.registered_at",
    "users.attributes",
    "users.past",
    "videos",
    *(f"videos.{name}" for name in VIDEOS.names if name != "video_id"),
    "requests",
    "requests.scores",
    "requests.probabilities",
)


def findings(found: Mapping[str, str]) -> list[Finding]:
    """One finding per part of the schema.

    Args:
        found: What was found, by part: ``log.<column>``, ``users``, ``users.<column>``, ``videos.<column>``, ...

    Returns:
        Findings in the schema's order; a part below an absent table is left out, its table says it.
    """
    result = []
    for part in _PARTS:
        table, _, column = part.partition(".")
        if column and table != "log" and table not in found:
            continue
        cost = "required" if part.removeprefix("log.") in LOG_REQUIRED else COSTS[part]
        result.append(Finding(part, found.get(part), "" if part in found else cost))
    return result
