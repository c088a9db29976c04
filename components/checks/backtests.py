"""The feeds that rung V2 is climbed on: the built-in world, and a KuaiRand edition where one is at hand."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from components.checks.backtest import backtest, found_of
from components.checks.rung import Found, Notify
from components.checks.worlds import DESIGN, Size, home_in, world_context
from components.config import load_pipeline
from components.context import Context
from components.errors import WindowError
from components.init import write_pipeline

WORLD_SEED = DESIGN + 503
SIZE = Size(users=4_000, new_users_per_day=150, videos=1_200, new_videos_per_day=80, window_days=7)
# Days before the first that is fitted: the longest window of the features, so that nobody looks inactive for want of a
# past; days that the response model learns from; later ones that it never saw.
WARM_UP_DAYS, FIT_DAYS, TEST_DAYS = 14, 7, 2
PROXIES = (
    "App time and return are proxies there: an edition keeps a small part of each user's feed, so 'returned' means "
    "'was shown a video of its pool again'."
)


def backtests(notify: Notify, kuairand: Path | None, size: Size = SIZE) -> list[Found]:
    """Backtest the response model.

    Args:
        notify: Called with (done, total, what).
        kuairand: Folder of a KuaiRand edition, None without one.
        size: Of the world.

    Returns:
        One rung per feed.

    Raises:
        WindowError: When the edition has too few days.
    """
    with TemporaryDirectory(prefix="mfh-check-") as folder:
        context = world_context(WORLD_SEED, size, Path(folder), days=WARM_UP_DAYS + FIT_DAYS + TEST_DAYS + 1)
        found = [_feed(context, "world", {"world_seed": WORLD_SEED, "size": asdict(size)}, notify)]
    if kuairand is not None:
        with TemporaryDirectory(prefix="mfh-check-") as folder:
            home = home_in(Path(folder))
            context = Context(load_pipeline(write_pipeline(home, str(kuairand), force=True)), home)
            found.append(_feed(context, "kuairand", {}, notify))
    return found


def _feed(context: Context, name: str, config: dict[str, object], notify: Notify) -> Found:
    feed = context.pipeline.feed
    last = feed.last_day
    if last is None or (last - feed.first_day).days < FIT_DAYS + TEST_DAYS:
        raise WindowError(
            f"a backtest needs {FIT_DAYS} days to fit, {TEST_DAYS} to test and one for their return; {name} has "
            f"{feed.first_day} to {last or 'no last day'}"
        )
    test = [last - timedelta(days=back) for back in range(TEST_DAYS, 0, -1)]
    fit = [test[0] - timedelta(days=back) for back in range(FIT_DAYS, 0, -1)]
    cells = backtest(context, fit, test, notify)
    days = {"fit": f"{fit[0]} to {fit[-1]}", "test": f"{test[0]} to {test[-1]}"}
    return found_of("kuairand" if name == "kuairand" else "world", cells, config | days, PROXIES * (name == "kuairand"))
