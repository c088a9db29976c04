"""The model registry of a pipeline in MLflow: versions, aliases, and what lies behind them.

One registered model ``mfh_<pipeline>``; every version is a bundle in the lake, named by its content hash. Whoever
moves aliases holds ``Registry.lock`` meanwhile; other machines are not kept out by it, and the last one to move an
alias wins there.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.context import Context
from components.errors import ModelRegistryError
from components.feature_list import service_name
from components.feed.source import features_of
from components.lake import Lake, Partition
from components.locks import exclusive
from components.masking import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CANDIDATE, CHALLENGER = "champion", "candidate", "challenger"
# What a bundle's facts are in; the rest of it needs torch to be read.
BUNDLE_FILE = "bundle.json"
ROLLED_BACK = "rolled_back"
# Seconds after which a server counts as not answering.
PATIENCE_S = 10


class UnknownModelError(ModelRegistryError):
    """No day of the pipeline was decided yet, so the registry has no model of it."""


@dataclass(frozen=True)
class Version:
    """One registered bundle.

    Attributes:
        number: MLflow's version number, as text.
        day: Interval day that it was trained for.
        role: ``treatment`` or ``baseline``.
        bundle: Content hash of its partition.
        folder: Where its files lie, inside the lake's file system.
        tags: All tags.
    """

    number: str
    day: str
    role: str
    bundle: str
    folder: str
    tags: Mapping[str, str]


class Registry:
    """The registered model of a pipeline.

    Args:
        context: Pipeline and settings.
        create: Whether to make the registered model where there is none yet.

    Raises:
        ModelRegistryError: When MLflow can not be reached, or knows no such model and none is to be made.
    """

    def __init__(self, context: Context, *, create: bool = False) -> None:
        self.context = context
        self.name = f"mfh_{context.pipeline.name}"
        (context.settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
        require_reachable(context.settings.mlflow_tracking_uri)
        # Two processes that open the first registry at once would both create its tables.
        with self.lock(), self.errors():
            self.client = _client(context)
            if create:
                self._create()
            self._find()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs of this machine from moving aliases meanwhile."""
        with exclusive(self.context.settings.home / "mlflow" / "registry.lock"):
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """MLflow's errors as the pipeline's own, without the passwords that database URLs carry."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            where = mask(self.context.settings.mlflow_tracking_uri)
            raise ModelRegistryError(
                f"the model registry at {where} can not do this for {self.name!r}: {mask(str(error))}; "
                "check MFH_MLFLOW_URI and that its server runs ('mfh doctor' does)"
            ) from None

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        with self.errors():
            found = self.client.search_model_versions(f"name='{self.name}'", max_results=10_000)
        return sorted((_version(one) for one in found), key=lambda one: int(one.number))

    def version(self, number: str) -> Version:
        """One version.

        Args:
            number: Its number.

        Returns:
            The version.

        Raises:
            ModelRegistryError: When there is none of that number; the message lists those that there are.
        """
        versions = self.versions()
        for one in versions:
            if one.number == number:
                return one
        known = ", ".join(one.number for one in versions[-10:]) or "none"
        raise ModelRegistryError(
            f"{self.name!r} has no version {number!r}; the newest are {known} ('mfh model history')"
        )

    def aliases(self) -> dict[str, str]:
        """Version number by alias."""
        with self.errors():
            found = self.client.get_registered_model(self.name).aliases
        return {alias: str(number) for alias, number in found.items()}

    def behind(self, alias: str) -> Version | None:
        """The version that an alias points to, or None where nobody has the alias.

        Args:
            alias: For example ``champion``.

        Returns:
            The version.

        Raises:
            ModelRegistryError: When the alias points to a version that was deleted.
        """
        number = self.aliases().get(alias)
        if number is None:
            return None
        for one in self.versions():
            if one.number == number:
                return one
        raise ModelRegistryError(
            f"alias {alias!r} of {self.name!r} points to version {number}, which was deleted; choose another one with "
            "'mfh model rollback --to VERSION --reason TEXT' ('mfh model history' lists them)"
        )

    def register(self, day: date, role: str, bundle: Partition) -> Version:
        """The version of a bundle; a bundle that is registered already gets no second one.

        Args:
            day: Interval day.
            role: Which arm.
            bundle: Its partition.

        Returns:
            The version.
        """
        tags = {
            "day": day.isoformat(),
            "role": role,
            "bundle": bundle.content_hash,
            "config_hash": self.context.pipeline.config_hash,
        }
        for one in self.versions():
            if all(one.tags.get(key) == value for key, value in tags.items()):
                return one
        with self.errors():
            return _version(self.client.create_model_version(self.name, source=bundle.folder, tags=tags))

    def files(self, version: Version) -> dict[str, bytes]:
        """The files of a version's bundle.

        Args:
            version: Of this registry.

        Returns:
            File name to content.

        Raises:
            ModelRegistryError: When the lake holds no such bundle any more, or another one than was registered.
        """
        lake = Lake.open(self.context.settings)
        # Who may write to the registry may not make this read whatever it likes.
        if not version.folder.startswith(f"{lake.root}/") or ".." in version.folder.split("/"):
            raise ModelRegistryError(
                f"version {version.number} of {self.name!r} names a bundle outside of the lake: {version.folder!r}; "
                "choose another version"
            )
        try:
            paths = lake.fs.ls(version.folder, detail=False)
            files: dict[str, bytes] = {str(path).rsplit("/", 1)[-1]: lake.fs.cat_file(path) for path in sorted(paths)}
        except OSError as error:
            raise ModelRegistryError(
                f"version {version.number} of {self.name!r} has no bundle in the lake any more ({version.folder}: "
                f"{type(error).__name__}); run its day {version.day} again, or choose another version"
            ) from error
        names = [(name, hashlib.sha256(data).hexdigest()) for name, data in files.items()]
        if hashlib.sha256(json.dumps(names).encode()).hexdigest() != version.bundle:
            raise ModelRegistryError(
                f"the bundle of version {version.number} of {self.name!r} at {version.folder} is not the one that was "
                "registered: its content hash differs; run its day again, or choose another version"
            )
        return files

    def require_usable(self, version: Version) -> dict[str, bytes]:
        """Refuse a version that could not serve.

        Args:
            version: Of this registry.

        Returns:
            Its files.

        Raises:
            ModelRegistryError: When its bundle is gone, changed, or reads another feature service.
        """
        files = self.files(version)
        service = bundle_facts(files).get("feature_service")
        served = service_name(features_of(self.context.pipeline.feed))
        if service != served:
            raise ModelRegistryError(
                f"version {version.number} of {self.name!r} reads the feature service {service!r}, this code serves "
                f"{served!r}; train its day {version.day} again, or choose another version"
            )
        return files

    def tag(self, version: str, **tags: str) -> None:
        """Set tags of a version."""
        with self.errors():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value)

    def untag(self, version: str, key: str) -> None:
        """Remove a tag of a version that has it."""
        with self.errors():
            self.client.delete_model_version_tag(self.name, version, key)

    def _find(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UnknownModelError(
                f"the registry knows no {self.name!r} yet: no day of this pipeline was decided ('mfh run')"
            ) from error

    def _create(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name, description=self.context.pipeline.description or None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def require_reachable(uri: str) -> None:
    """Refuse a registry whose server does not answer, in seconds: MLflow itself would go on trying for minutes.

    Args:
        uri: MLflow's tracking URI, a database or a server.

    Raises:
        ModelRegistryError: When it does not answer or lets nobody in; without the URI's password.
    """
    # MLflow imports it anyway.
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    parts = urlsplit(uri)
    try:
        if parts.scheme in {"http", "https"}:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            socket.create_connection((parts.hostname or "", port), timeout=PATIENCE_S).close()
        elif parts.scheme.startswith("postgresql"):
            engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": PATIENCE_S})
            engine.connect().close()
    except (OSError, ValueError, SQLAlchemyError) as error:
        why = mask(str(error)).splitlines()[0]
        raise ModelRegistryError(
            f"the model registry at {mask(uri)} does not answer: {why}; check MFH_MLFLOW_URI and that its server runs "
            "('mfh doctor' does)"
        ) from None


def bundle_facts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What training recorded with a bundle (feature service, days, model), without loading its weights.

    Args:
        files: File name to content.

    Returns:
        The facts.

    Raises:
        ModelRegistryError: When there is no readable record.
    """
    try:
        content = json.loads(files[BUNDLE_FILE])
        facts: dict[str, Any] = dict(content["extra"])
    except (KeyError, ValueError, TypeError) as error:
        raise ModelRegistryError(
            f"{BUNDLE_FILE} of the bundle can not be read: {type(error).__name__}: {error}"
        ) from error
    return facts | {"tasks": [task["name"] for task in content["tasks"]]}


def _client(context: Context) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that is down is noticed within a minute.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    return MlflowClient(context.settings.mlflow_tracking_uri, context.settings.mlflow_tracking_uri)


def _version(one: "ModelVersion") -> Version:
    tags = dict(one.tags)
    return Version(
        str(one.version), tags.get("day", ""), tags.get("role", ""), tags.get("bundle", ""), str(one.source), tags
    )
