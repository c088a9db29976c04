"""What ``feast apply`` finds: the objects of the pipeline that the environment names."""

import os

from components.config import Settings, find_pipeline
from components.feed.source import catalogue_of
from feature_repo.definitions import definitions

_pipeline = find_pipeline(Settings(), os.environ.get("MFH_PIPELINE"))
_objects = definitions(_pipeline, catalogue_of(_pipeline.feed), Settings().feast_offline)

globals().update({f"{type(item).__name__.lower()}_{item.name}": item for item in _objects})
