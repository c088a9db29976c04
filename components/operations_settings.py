"""Settings of what watches the pipeline: metrics, lineage, logs, alerts; and where secrets come from."""

import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.masking import mask

LogFormat = Literal["key_value", "json"]
# Our roles; what they may do in Airflow is in docs/security.md.
USER_PATTERN = r"[a-z][a-z0-9_.\-]{0,30}:(viewer|operator|admin)"
METRIC_SCHEMES = ("statsd", "otlp+http", "otlp+https")


class OperationsSettings(BaseSettings):
    """How a machine's runs are watched. Every field can be set by the environment variable ``MFH_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="MFH_", frozen=True)

    log_format: LogFormat = Field("key_value", description="Of the line that every step ends with")
    metrics: str = Field(
        "", description="statsd://host:8125/prefix or otlp+http://host:4318; empty switches metrics off"
    )
    lineage_url: str = Field("", description="OpenLineage receiver, http(s)://host:port; empty switches events off")
    lineage_namespace: str = Field("mfh", description="OpenLineage namespace of the jobs")
    lineage_api_key: str = Field("", repr=False)
    alert_url: str = Field("", description="Webhook that is sent a JSON object when a report is late")
    report_due_min: int = Field(
        360, gt=0, description="Minutes after the end of a day by which its report has to be there"
    )
    runbooks: str = Field("docs/runbooks.md", description="Where the runbooks lie, a URL in production")
    lake_connection: str = Field(
        "", description="Airflow connection that holds the lake's keys (login, password, extra endpoint_url)"
    )

    ui_users: str = Field(
        "", description="Further people at the embedded Airflow, NAME:ROLE,…; roles are viewer, operator, admin"
    )

    @field_validator("ui_users")
    @classmethod
    def _known_roles(cls, value: str) -> str:
        if wrong := [one for one in value.split(",") if value and not re.fullmatch(USER_PATTERN, one)]:
            raise ValueError(f"{wrong[0]!r} is not NAME:ROLE with a role of viewer, operator, admin")
        return value

    @field_validator("metrics", "lineage_url", "alert_url")
    @classmethod
    def _known_scheme(cls, value: str, info: Any) -> str:
        schemes = METRIC_SCHEMES if info.field_name == "metrics" else ("http", "https")
        parts = urlsplit(value)
        if value and (parts.scheme not in schemes or not parts.hostname):
            # Without the value: it may carry a password.
            raise ValueError(f"must be empty or {' or '.join(f'{scheme}://host' for scheme in schemes)}")
        return value

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Fields as they may be shown: passwords of URLs are masked."""
        for name, value in super().__repr_args__():
            yield name, mask(value) if isinstance(value, str) else value
