"""Redis as online store: one hash per entity, one field per view."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.repo_config import RepoConfig
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from components.errors import OnlineStoreError
from feature_repo.online.store import Mark, Row, RowOnlineStore, Stored, reaching

TIMES = struct.Struct(">Qq")
ROWS_AT_ONCE = 1_000

# Compares and sets in the server, in one go: between a client's look and its write another could have come.
# Microseconds since 1970 are below 2^53, so that Lua's numbers hold them exactly.
PUT = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held and ARGV[3] == 'continues' then return 0 end
if held and struct.unpack('>I8', held) > struct.unpack('>I8', ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


class RowRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's own settings of Redis: ``connection_string``, ``redis_type``; ``key_ttl_seconds`` is not used."""

    type: Literal["feature_repo.online.redis.RowRedisOnlineStore"] = "feature_repo.online.redis.RowRedisOnlineStore"


class RowRedisOnlineStore(RowOnlineStore):
    """Packed rows in Redis, below Feast's own keys.

    Not a subclass of Feast's Redis store, whose other ways of reading (all views at once, asynchronous) are of its own
    format; it makes the connections (cluster, sentinel).
    """

    _connections: RedisOnlineStore | None = None

    def put(self, config: RepoConfig, view: str, chunks: Iterable[list[Row]], mark: Mark | None) -> int:
        """See ``RowOnlineStore``; readers see rows as they come in."""
        field, project, sent = view.encode(), config.project.encode(), 0
        with self._reaching(config):
            client = self._client(config)
            before = _incarnation(client)
            script = client.script_load(PUT)
            for rows in chunks:
                for start in range(0, len(rows), ROWS_AT_ONCE):
                    with client.pipeline(transaction=False) as pipe:
                        for key, as_of, event, values in rows[start : start + ROWS_AT_ONCE]:
                            pipe.evalsha(script, 1, key + project, field, TIMES.pack(as_of, event) + values)
                        pipe.execute()
                sent += len(rows)
            if _incarnation(client) != before:
                raise OnlineStoreError(
                    f"Redis at {_where(config)} was started anew while {view!r} was written, so rows may be lost; "
                    "running the step again writes everything that is missing"
                )
            if mark is not None:
                how = "continues" if mark.continues else "begins"
                client.evalsha(script, 1, _record(config), field, TIMES.pack(*mark.record), how)
        return sent

    def fetch(self, config: RepoConfig, view: str, keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        """See ``RowOnlineStore``."""
        field, project = view.encode(), config.project.encode()
        with self._reaching(config), self._client(config).pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key + project, field)
            held = pipe.execute()
        return {key: _stored(value) for key, value in zip(keys, held, strict=True) if value is not None}

    def marks(self, config: RepoConfig) -> dict[str, Mark]:
        """See ``RowOnlineStore``."""
        with self._reaching(config):
            record = self._client(config).hgetall(_record(config))
        return {view.decode(): Mark(*TIMES.unpack(value)) for view, value in record.items()}

    def drop(self, config: RepoConfig, view: str) -> None:
        """See ``RowOnlineStore``; looks at every key of the database."""
        with self._reaching(config):
            client = self._client(config)
            # A pattern would have to escape what the project's name may hold.
            suffix = config.project.encode()
            found = [key for key in client.scan_iter(count=10_000) if key.endswith(suffix)]
            with client.pipeline(transaction=False) as pipe:
                for key in found:
                    pipe.hdel(key, view.encode())
                pipe.execute()
            client.hdel(_record(config), view.encode())

    def _reaching(self, config: RepoConfig) -> AbstractContextManager[None]:
        lost = (RedisConnectionError, RedisTimeoutError, ReadOnlyError)
        return reaching(f"Redis at {_where(config)}", lost, self._forget)

    def _client(self, config: RepoConfig) -> Any:
        if self._connections is None:
            self._connections = RedisOnlineStore()
        return self._connections._get_client(config.online_store)

    def _forget(self) -> None:
        self._connections = None


def _stored(value: bytes) -> Stored:
    as_of, event = TIMES.unpack_from(value)
    return Stored(as_of, event, value[TIMES.size :])


def _record(config: RepoConfig) -> bytes:
    return f"materialized:{config.project}:marks".encode()


def _where(config: RepoConfig) -> str:
    """Host and port, without a password."""
    return ",".join(part for part in config.online_store.connection_string.split(",") if "=" not in part)


def _incarnation(client: Any) -> list[str]:
    """Changes when a server is started anew, with whatever its persistence had kept."""
    info = client.info("server")
    servers = [info] if "run_id" in info else info.values()
    return sorted(str(one["run_id"]) for one in servers)
