"""Which online store serves features, and how strictly it is held against the offline join."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field

from components.errors import ConfigError
from components.feed_settings import Record

# Seconds after which a silent server counts as away. Feast's own default is to wait for ever.
SOCKET_TIMEOUT_S = 30


class OnlineSettings(Record):
    """Materialization and the comparison of online and offline values."""

    retry_s: float = Field(180.0, ge=0, description="How long a materialization waits for a store that is away")
    skew_users: int = Field(200, ge=0, description="Users of a day whose online values are compared")
    skew_videos: int = Field(200, ge=0, description="Videos of a day whose online values are compared")
    max_mismatch_rate: float = Field(
        0.0, ge=0, le=1, description="Share of compared values that may differ before the day fails"
    )


def online_store(url: str, default: Path) -> dict[str, Any]:
    """What ``feature_store.yaml`` says of the online store.

    Args:
        url: Value of ``MFH_ONLINE_STORE``: empty, ``sqlite:///PATH``, ``redis://[USER:PASSWORD@]HOST[:PORT][/DB]``,
            ``rediss://`` with TLS, or ``postgresql://USER:PASSWORD@HOST[:PORT]/DATABASE``. What follows ``?`` are
            settings of Feast's store of that kind (``redis_type``, ``db_schema``, ``sslmode`` ...).
        default: The SQLite file where nothing is said.

    Returns:
        Feast's configuration of the store, JSON types only.

    Raises:
        ConfigError: When the URL is of no known kind, or lacks a part.
    """
    if not url:
        return _sqlite(default)
    parts = urlsplit(url)
    extra = dict(parse_qsl(parts.query))
    # What is after the scheme never goes into a message: it may hold a password.
    match parts.scheme:
        case "sqlite":
            return _sqlite(Path(unquote(parts.path)))
        case "redis" | "rediss":
            hosts = parts.netloc.rpartition("@")[2]
            if not hosts:
                raise ConfigError("MFH_ONLINE_STORE names no host: redis://HOST[:PORT][/DB]")
            return {
                "type": "feature_repo.online.redis.RowRedisOnlineStore",
                "connection_string": _redis_connection(parts.scheme, hosts, parts.username, parts.password, parts.path),
                **extra,
            }
        case "postgresql" | "postgres":
            if not parts.hostname or not parts.path.strip("/"):
                raise ConfigError("MFH_ONLINE_STORE lacks host or database: postgresql://USER:PASSWORD@HOST/DATABASE")
            return {
                "type": "feature_repo.online.postgres.RowPostgresOnlineStore",
                "host": parts.hostname,
                "port": parts.port or 5432,
                "database": unquote(parts.path.strip("/")),
                "user": unquote(parts.username or "postgres"),
                "password": unquote(parts.password or ""),
                "sslmode": "prefer",
                **extra,
            }
        case _:
            raise ConfigError(
                f"MFH_ONLINE_STORE is a URL of kind {parts.scheme!r}; known are sqlite, redis, rediss and postgresql"
            )


def _sqlite(path: Path) -> dict[str, Any]:
    return {"type": "feature_repo.online.sqlite.RowSqliteOnlineStore", "path": str(path)}


def _redis_connection(scheme: str, hosts: str, user: str | None, password: str | None, path: str) -> str:
    """Feast's own notation: ``host:port,...,setting=value``."""
    parts = [host if ":" in host else f"{host}:6379" for host in hosts.split(",")]
    if database := path.strip("/"):
        parts.append(f"db={database}")
    if scheme == "rediss":
        parts.append("ssl=true")
    for name, value in (("username", user), ("password", password)):
        if value:
            plain = unquote(value)
            if "," in plain:
                raise ConfigError(f"the {name} in MFH_ONLINE_STORE holds a comma, which Feast's notation can not carry")
            # Quoted, since Feast would read a password of digits as a number.
            parts.append(f'{name}="{plain}"' if plain.isdigit() else f"{name}={plain}")
    parts += [f"socket_timeout={SOCKET_TIMEOUT_S}", f"socket_connect_timeout={SOCKET_TIMEOUT_S}"]
    return ",".join(parts)
