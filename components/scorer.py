"""Score a request: features from the online store, a bundle's model, one number per candidate and task."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.context import Context
from components.errors import BundleError
from components.feed.source import features_of
from components.inputs import GROUPS, days_between, log_days, model_inputs, user_group
from components.online import OnlineFeatures, Read

if TYPE_CHECKING:
    from components.models.fitted import Fitted


@dataclass(frozen=True)
class Request:
    """One request for a ranking.

    Attributes:
        user_id: Who asks.
        video_ids: The candidates, each once or more.
        moment: When; features older than they may be, or newer than the request, are not seen.
        surface: Where in the product, as the log calls it.
    """

    user_id: int
    video_ids: tuple[int, ...]
    moment: datetime
    surface: str = ""


@dataclass(frozen=True)
class Scores:
    """The answer to a request.

    Attributes:
        tasks: Names of the m tasks.
        values: float32 [N, m], one row per candidate in the order asked.
        group: The user's group, which chooses the model's heads.
        unknown: How many of the request's users and videos are not online; they were scored by defaults.
    """

    tasks: tuple[str, ...]
    values: NDArray[np.float32]
    group: str
    unknown: dict[str, int]


class OnlineScorer:
    """A bundle's model over online features; opened once, it serves any number of requests.

    Args:
        context: Pipeline and settings.
        fitted: The model, as ``models.bundle.load`` gives it.

    Raises:
        BundleError: When the bundle names a feature service that the registry does not hold, or no activity threshold.
    """

    def __init__(self, context: Context, fitted: "Fitted") -> None:
        from feast.errors import FeatureServiceNotFoundException

        self._pipeline, self._fitted = context.pipeline, fitted
        self._features = features_of(context.pipeline.feed)
        self.online = OnlineFeatures(context, self._features)
        service = fitted.extra.get("feature_service", "")
        try:
            self.online.store.get_feature_service(service)
        except FeatureServiceNotFoundException as error:
            raise BundleError(
                f"the bundle reads feature service {service!r}, which Feast's registry of this pipeline does not hold; "
                "train the day again, or use the pipeline that the bundle was trained in"
            ) from error
        if "activity_threshold" not in fitted.extra:
            raise BundleError("the bundle records no activity_threshold, which tells a user's group; train it anew")
        self._threshold = float(fitted.extra["activity_threshold"])

    def score(self, request: Request) -> Scores:
        """Score the candidates of a request.

        Args:
            request: Who asks, for what, when.

        Returns:
            One row per candidate. Unknown users and videos get the feature list's defaults and are counted, here and
            in ``online.unknown``; the numbers are those that the offline join of the same moment would give.

        Raises:
            OnlineStoreError: When the store can not be reached.
        """
        from components.models.scoring import PairScorer

        candidates = len(request.video_ids)
        user = self.online.read("user", [request.user_id], request.moment)
        video = self.online.read("video", request.video_ids, request.moment)
        tenure = _age(user, request.moment)
        users = model_inputs(user.table, self._features).append_column("log_tenure_days", log_days(tenure))
        videos = model_inputs(video.table, self._features)
        activity = users[f"user_impressions_{self._pipeline.groups.activity_days}d"]
        group = int(user_group(tenure, activity, self._threshold, self._pipeline.groups)[0].as_py())
        hour = request.moment.astimezone(self._pipeline.feed.zone).hour
        context = pa.table(
            {
                "surface": pa.array([request.surface] * candidates, pa.string()),
                "hour": pa.array([hour] * candidates, pa.int8()),
                "log_video_age_days": log_days(_age(video, request.moment)),
            }
        )
        scorer = PairScorer(self._fitted, users, videos)
        values = scorer.score(
            np.zeros(candidates, np.int64), np.arange(candidates), context, np.full(candidates, group, np.int8)
        )
        unknown = {"user": int((~user.known).sum()), "video": int((~video.known).sum())}
        return Scores(scorer.tasks, values, GROUPS[group], unknown)


def _age(read: Read, moment: datetime) -> pa.ChunkedArray:
    """Full days since each entity is known."""
    stamp = pa.scalar(moment, pa.timestamp("us", "UTC"))
    return days_between(pa.chunked_array([pa.repeat(stamp, read.table.num_rows)]), read.since)
