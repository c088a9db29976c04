"""Feast's registry: ``feast apply`` belongs to set-up and CI, and a daily run only reads.

``mfh features apply`` registers a pipeline's list. On one machine, where nobody sets anything up, the first reader of
a registry that lacks the list registers it; ``MFH_FEAST_APPLY=never``, as a deployment has it, makes that an error.
"""

from typing import TYPE_CHECKING

from components.context import Context
from components.errors import FeatureRegistryError
from components.feature_list import fingerprint, service_name
from components.feed.source import catalogue_of, features_of

if TYPE_CHECKING:
    from feast import FeatureStore

# Tag of the feature service that tells which list the views were registered from.
LIST_TAG = "feature_list"


def is_registered(context: Context, store: "FeatureStore") -> bool:
    """Whether the registry holds the pipeline's very feature list.

    Args:
        context: Pipeline and settings.
        store: The pipeline's Feast store.

    Returns:
        False also where another list of the same project is registered.
    """
    from feast.errors import FeatureServiceNotFoundException

    name = service_name(features_of(context.pipeline.feed))
    try:
        service = store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        return False
    wanted = {LIST_TAG: fingerprint(catalogue_of(context.pipeline.feed)), "offline": context.settings.feast_offline}
    return bool(service.tags == wanted)


def apply(context: Context, store: "FeatureStore") -> bool:
    """Register what the registry lacks; services of earlier lists stay, for the bundles that name them.

    Args:
        context: Pipeline and settings.
        store: The pipeline's Feast store.

    Returns:
        Whether anything had to be registered.
    """
    if is_registered(context, store):
        return False
    from feature_repo.definitions import definitions

    listed = catalogue_of(context.pipeline.feed)
    store.apply(definitions(context.pipeline, listed, context.settings.feast_offline))
    return True


def ensure_registered(context: Context, store: "FeatureStore") -> None:
    """What a step does before it reads: nothing, where set-up has applied.

    Args:
        context: Pipeline and settings.
        store: The pipeline's Feast store.

    Raises:
        FeatureRegistryError: When the list is not registered and ``MFH_FEAST_APPLY`` is ``never``.
    """
    if context.settings.feast_apply == "missing":
        apply(context, store)
        return
    if is_registered(context, store):
        return
    others = sorted(project.name for project in store.registry.list_projects())
    raise FeatureRegistryError(
        f"the registry {_where(context)} does not hold the feature list of project {store.project!r} "
        f"(it holds {', '.join(others) or 'no project'}), and MFH_FEAST_APPLY=never keeps a run from registering it: "
        "run 'mfh features apply' with the settings of the run, or name the right registry in MFH_FEAST_REGISTRY"
    )


def _where(context: Context) -> str:
    """The registry without the password that a database's URL may carry."""
    from sqlalchemy.engine import make_url

    if not context.settings.feast_registry:
        return f"in {context.settings.home}"
    return make_url(context.settings.feast_registry).render_as_string(hide_password=True)
