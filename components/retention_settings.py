"""Settings of retention: what the maintenance step may remove, and how long everything is kept at least."""

from pydantic import Field

from components.feed_settings import Record


class RetentionSettings(Record):
    """Ages are counted in days before the newest day in the lake, so that a feed that stopped loses nothing."""

    apply: bool = Field(False, description="Whether the maintenance DAG removes what it finds, or only says so")
    data_days: int = Field(
        400, gt=0, description="Logs, users, videos, snapshots, examples; never fewer than a window needs"
    )
    work_days: int = Field(30, gt=0, description="Training sets, response models, rollouts, bundles that never served")
    report_days: int | None = Field(None, gt=0, description="Reports and what they show; None keeps them for ever")
    champions: int = Field(5, gt=0, description="How many former champions stay, to roll back to")
    grace_hours: float = Field(
        48,
        ge=0,
        description="What was written since, and whatever it was made from, is left alone: jobs may be running",
    )
