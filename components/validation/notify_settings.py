"""Where a failed gate is told, from the environment: ``MFH_NOTIFY_*``."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class NotifySettings(BaseSettings):
    """Channels beside the log. Each that is set is used."""

    model_config = SettingsConfigDict(env_prefix="MFH_NOTIFY_", frozen=True)

    webhook: str = Field("", repr=False, description="URL that takes a JSON object by POST")
    smtp_host: str = ""
    smtp_port: int = 25
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    smtp_user: str = ""
    smtp_password: str = Field("", repr=False)
    sender: str = Field("mfh@localhost", alias="MFH_NOTIFY_FROM")
    to: str = Field("", description="Addresses with commas between")
    timeout_s: float = Field(10.0, gt=0)
