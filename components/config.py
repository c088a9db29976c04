"""The pipeline's configuration: frozen records, one YAML file per pipeline, unknown keys refused.

One file = one pipeline = one DAG. ``Settings`` holds where things live on a machine (lake, registry,
stores) and comes from the environment; ``Pipeline`` holds what is computed and comes from the file.
Both are read once, at the edge, and passed down.
"""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from components.errors import ConfigError
from components.feed_settings import (
    Feed,
    FeedSettings,
    FilesFeed,
    KuaiRandFeed,
    PythonFeed,
    Record,
    TableMapping,
    WorldFeed,
)
from components.models.settings import MODEL_KINDS, ModelKind, ModelRecipe, Task, TaskName, TrainSettings
from components.online_settings import OnlineSettings
from components.operations_settings import OperationsSettings
from components.promotion_settings import Promotion, PromotionSettings
from components.retention_settings import RetentionSettings
from components.runner_settings import RunnerSettings
from components.simulator_settings import DecisionRule, SimulatorSettings
from components.validation.notify_settings import NotifySettings

__all__ = [
    "MODEL_KINDS",
    "PARAMS",
    "DecisionRule",
    "FeatureSettings",
    "Feed",
    "FeedSettings",
    "FilesFeed",
    "GroupSettings",
    "KuaiRandFeed",
    "ModelKind",
    "ModelRecipe",
    "OnlineSettings",
    "Pipeline",
    "PromotionSettings",
    "PythonFeed",
    "Record",
    "Settings",
    "SimulatorSettings",
    "TableMapping",
    "Task",
    "TaskName",
    "TrainSettings",
    "ValidationSettings",
    "WorldFeed",
    "find_pipeline",
    "load_pipeline",
    "parse_pipeline",
]


class GroupSettings(Record):
    """User and item groups as of the exposure."""

    new_tenure_days: int = Field(30, gt=0)
    activity_days: Literal[1, 3, 7, 14] = 14
    new_video_age_days: int = Field(3, gt=0)


class FeatureSettings(Record):
    """Feature snapshots and their availability."""

    snapshot_lag_min: int = Field(60, ge=0, lt=24 * 60)
    ttl_days: int = Field(3, gt=0)
    last_videos: int = Field(20, gt=0)


class ValidationSettings(Record):
    """Limits of the data gates."""

    max_refused_share: float = Field(0.2, ge=0, le=1)
    min_rows: int = Field(1, ge=1)


class Pipeline(Record):
    """One pipeline = one file = one DAG."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    description: str = ""
    owner: str = "ml-platform"
    caveats: tuple[str, ...] = Field((), description="Sentences that every report of this feed must show")
    feed: Feed
    groups: GroupSettings = GroupSettings()
    features: FeatureSettings = FeatureSettings()
    validation: ValidationSettings = ValidationSettings()
    online: OnlineSettings = OnlineSettings()
    tasks: tuple[Task, ...] = (
        Task("completion"),
        Task("finish"),
        Task("skip"),
        Task("long_view"),
        Task("like"),
    )
    sizes: ModelRecipe = Field(ModelRecipe("mfh"), description="Sizes of every model that is named by its kind alone")
    models: dict[str, ModelRecipe] = Field({}, description="Models of other sizes, by a name of their own")
    treatment: str = "mfh"
    baseline: str = "ple"
    train: TrainSettings = TrainSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    decision: DecisionRule = DecisionRule()
    promote: bool = True
    promotion: Promotion = PromotionSettings()
    retention: RetentionSettings = RetentionSettings()
    diagnostics: bool = Field(False, description="Train three more models a day to look inside the treatment")

    @model_validator(mode="after")
    def _consistent(self) -> "Pipeline":
        for role, name in (("treatment", self.treatment), ("baseline", self.baseline)):
            if name not in self.models and name not in MODEL_KINDS:
                known = ", ".join((*sorted(self.models), *MODEL_KINDS))
                raise ValueError(f"{role} {name!r} is neither one of the file's models nor a model of the zoo: {known}")
        if self.treatment == self.baseline:
            raise ValueError("treatment and baseline are the same model; an A/B report needs two")
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"a task is listed twice in {names}")
        weighted = set(self.simulator.fusion).union(*self.simulator.fusion_by_group.values())
        if missing := sorted(weighted - set(names)):
            raise ValueError(f"simulator.fusion weighs tasks that are not trained: {missing}")
        return self

    @property
    def second_comparison(self) -> bool:
        """Whether a day also holds the treatment against the deployed champion."""
        return self.promotion.champion != "none"

    @property
    def source_id(self) -> str:
        """Folder of the feed's data in the lake: one per feed, shared by pipelines over the same feed."""
        identity = self.feed.model_dump(mode="json", exclude={"last_day"})
        # Snapshots depend on these besides the feed.
        identity["features"] = self.features.model_dump(mode="json")
        return f"{self.feed.kind}-{_digest(identity)[:8]}"

    @property
    def identity(self) -> dict[str, Any]:
        """Every setting that changes a result, as plain data: not where the data lies, nor its growing end."""
        # Diagnostics and checks of the online store explain a result and change none, so they can be switched on for
        # a day that has run.
        aside = {"owner", "description", "promote", "promotion", "retention", "diagnostics", "online"}
        identity = self.model_dump(mode="json", exclude=aside)
        for location in ("folder", "last_day"):
            identity["feed"].pop(location, None)
        # Shards are bit-equal to one process, so their number changes no result.
        identity["simulator"].pop("shards")
        return identity

    @property
    def config_hash(self) -> str:
        """Hash of everything that changes a result (``identity``)."""
        return _digest(self.identity)[:12]

    @property
    def tunes_fusion(self) -> bool:
        """Whether a day finds each arm's fusion weights before it simulates."""
        return self.simulator.fusion_trials > 0

    def recipe(self, name: str) -> ModelRecipe:
        """The recipe of a name: one of ``models``, or a model of the zoo in the sizes of ``sizes``.

        Args:
            name: Value of ``treatment`` or ``baseline``.

        Returns:
            The recipe.
        """
        return self.models.get(name) or replace(self.sizes, kind=cast(ModelKind, name))

    def override(self, params: dict[str, Any]) -> "Pipeline":
        """Apply a run's parameters (see ``PARAMS``) and check the result as a whole.

        Args:
            params: Parameter name to value; names not in ``PARAMS`` are refused, ``None`` changes nothing.

        Returns:
            The pipeline with those settings replaced.

        Raises:
            ConfigError: When a name is unknown or the result is not a valid pipeline.
        """
        data = self.model_dump(mode="json")
        for name, value in params.items():
            if name not in PARAMS:
                raise ConfigError(f"unknown parameter {name!r}; known are {sorted(PARAMS)}")
            if value is None:
                continue
            *parents, leaf = PARAMS[name]
            place = data
            for key in parents:
                place = place[key]
            place[leaf] = value
        return parse_pipeline(data, where="parameters of the run")


# Run parameters (Airflow Params, ``mfh run`` options) and the setting that each one replaces.
PARAMS: dict[str, tuple[str, ...]] = {
    "window_days": ("train", "window_days"),
    "treatment": ("treatment",),
    "baseline": ("baseline",),
    "train_seed": ("train", "seed"),
    "simulation_seed": ("simulator", "seed"),
    "shards": ("simulator", "shards"),
    "promote": ("promote",),
}


class Settings(RunnerSettings, OperationsSettings):
    """Where things live on this machine. Every field can be set by the environment variable ``MFH_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="MFH_", frozen=True)

    home: Path = Path(".mfh")
    lake: str = ""
    lake_endpoint: str = ""
    lake_access_key: str = ""
    lake_secret_key: str = Field("", repr=False)
    pipelines: str = ""
    mlflow_uri: str = ""
    feast_registry: str = ""
    feast_apply: Literal["missing", "never"] = "missing"
    feast_offline: Literal["duckdb", "spark"] = "duckdb"
    notify: NotifySettings = Field(default_factory=NotifySettings)
    online_store: str = Field("", repr=False)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no log, error or page may show."""
        urls = [urlsplit(url).password for url in (self.lake, self.mlflow_uri, self.feast_registry, self.alert_url)]
        return tuple(filter(None, (self.lake_secret_key, self.lineage_api_key, *urls)))

    @property
    def lake_root(self) -> str:
        """Root of the lake: a folder or an object store's URL."""
        return self.lake or str(self.home / "lake")

    @property
    def pipelines_dir(self) -> Path:
        """Folder of the pipeline files."""
        return Path(self.pipelines) if self.pipelines else self.home / "pipelines"

    @property
    def mlflow_tracking_uri(self) -> str:
        """MLflow's tracking and registry database."""
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"


def parse_pipeline(data: dict[str, Any], where: str) -> Pipeline:
    """Check a pipeline given as plain data.

    Args:
        data: The content of a pipeline file.
        where: What to name in an error message.

    Returns:
        The checked pipeline.

    Raises:
        ConfigError: One line per problem, each with the key's path.
    """
    try:
        return Pipeline.model_validate(data)
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, e['loc'])) or 'pipeline'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{where} is not a valid pipeline:\n" + "\n".join(problems)) from error


def read_pipeline_files(folder: Path) -> tuple[list["Pipeline"], list[str]]:
    """The pipelines of a folder, and what is wrong with the files that are none.

    Args:
        folder: Holds one YAML file per pipeline.

    Returns:
        Pipelines by file name; a sentence for every file that can not be read, or is not named as its pipeline, by
        which tasks look for it.
    """
    good, wrong = [], []
    for file in sorted(folder.glob("*.yaml")):
        try:
            pipeline = load_pipeline(file)
            if file.stem != pipeline.name:
                raise ConfigError(
                    f"{file} holds the pipeline {pipeline.name!r}: name the file {pipeline.name}.yaml, or the pipeline "
                    f"{file.stem!r}; tasks look for it by its name"
                )
            good.append(pipeline)
        except ConfigError as error:
            wrong.append(str(error))
    return good, wrong


def load_pipeline(path: Path) -> Pipeline:
    """Read one pipeline file. ``${NAME}`` in it is replaced by the environment variable NAME.

    Args:
        path: A YAML file.

    Returns:
        The checked pipeline.

    Raises:
        ConfigError: When the file is missing, not YAML, names an unset variable, or has a bad key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"pipeline file {path} can not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"pipeline file {path} is not UTF-8: {error}") from error

    def expand(match: re.Match[str]) -> str:
        if (value := os.environ.get(match[1])) is None:
            raise ConfigError(f"{path} uses ${{{match[1]}}}, but that environment variable is not set")
        return value

    try:
        data = yaml.safe_load(re.sub(r"\$\{([A-Z][A-Z0-9_]*)\}", expand, text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, found {type(data).__name__}")
    return parse_pipeline(data, where=str(path))


def find_pipeline(settings: Settings, name: str | None) -> Pipeline:
    """The pipeline called ``name``, or the only one there is.

    Args:
        settings: Tells the folder of pipeline files.
        name: Name of a pipeline, path of a YAML file, or None for the only one.

    Returns:
        The checked pipeline.

    Raises:
        ConfigError: When there is none, or several to choose from.
    """
    if name and name.endswith((".yaml", ".yml")):
        return load_pipeline(Path(name))
    files = sorted(settings.pipelines_dir.glob("*.yaml"))
    if name:
        files = [file for file in files if file.stem == name]
    if len(files) == 1:
        return load_pipeline(files[0])
    if not files:
        wanted = f"no pipeline {name!r}" if name else "no pipeline file"
        raise ConfigError(f"{wanted} in {settings.pipelines_dir}; 'mfh init' makes one")
    raise ConfigError(f"several pipelines: {', '.join(f.stem for f in files)}; choose one with --pipeline NAME")


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
