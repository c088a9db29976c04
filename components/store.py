"""The Feast store of a pipeline: one project per feed, configured from the same YAML that ``feast apply`` reads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import yaml

from components.context import Context
from components.errors import ConfigError
from components.locks import exclusive
from components.online_settings import online_store

if TYPE_CHECKING:
    from feast import FeatureStore

OFFLINE_STORES = {
    "duckdb": "feature_repo.lake_offline_store.LakeOfflineStore",
    "spark": "feature_repo.lake_spark_store.LakeSparkOfflineStore",
}

REPO = Path(__file__).resolve().parent.parent / "feature_repo"


def store_environment(context: Context) -> dict[str, str]:
    """The variables of ``feature_store.yaml``: which project, registry, lake and online store."""
    folder = context.settings.home / "feast" / context.pipeline.source_id
    return {
        "MFH_FEAST_PROJECT": "mfh_" + context.pipeline.source_id.replace("-", "_"),
        "MFH_FEAST_REGISTRY": context.settings.feast_registry or f"sqlite:///{folder / 'registry.db'}",
        "MFH_FEAST_ONLINE": json.dumps(online_store(context.settings.online_store, folder / "online.db")),
        "MFH_FEAST_ROOT": _lake_url(context),
        "MFH_FEAST_OFFLINE_STORE": OFFLINE_STORES[context.settings.feast_offline],
        "MFH_FEAST_TIMEZONE": context.pipeline.feed.timezone,
        "MFH_LAKE_ENDPOINT": context.settings.lake_endpoint,
        "MFH_LAKE_ACCESS_KEY": context.settings.lake_access_key,
        "MFH_LAKE_SECRET_KEY": context.settings.lake_secret_key,
    }


def open_store(context: Context) -> "FeatureStore":
    """The Feast store, with the pipeline's views registered (see ``components.feature_registry``).

    Args:
        context: Pipeline and settings.

    Returns:
        A store ready for historical reads and materialization.

    Raises:
        ConfigError: When the engine that ``MFH_FEAST_OFFLINE`` names is not installed.
    """
    from feast import FeatureStore, RepoConfig

    from components.feature_registry import ensure_registered

    if context.settings.feast_offline == "spark" and find_spec("pyspark") is None:
        raise ConfigError("MFH_FEAST_OFFLINE=spark needs Java 17 and pip install 'mfh-pipeline[spark]'")
    folder = context.settings.home / "feast" / context.pipeline.source_id
    text = Template((REPO / "feature_store.yaml").read_text(encoding="utf-8"))
    config = RepoConfig(repo_path=str(REPO), **yaml.safe_load(text.substitute(store_environment(context))))
    # Two steps that open the first store at once would both create the registry's tables, and one would fail.
    with exclusive(folder / "registry.lock"):
        store = FeatureStore(config=config)
        ensure_registered(context, store)
    return store


@contextmanager
def offline_engine() -> Iterator[None]:
    """Release the DuckDB connection that Feast's offline store opens, with the tables that were handed to it.

    Ibis keeps it in a global for the life of the process: gigabytes that a step would otherwise hold on to.
    """
    import gc

    import ibis

    try:
        yield
    finally:
        backend = ibis.options.default_backend
        if backend is not None:
            backend.disconnect()
            ibis.options.default_backend = None
            del backend
            gc.collect()


def _lake_url(context: Context) -> str:
    root = context.settings.lake_root
    scheme = "s3://" if root.startswith("s3://") else ""
    return scheme + context.data.root
