"""The named errors of the pipeline. Each message says what happened, where, and how to mend it."""


class MfhError(Exception):
    """Root of every error that a user of the pipeline can cause or mend."""


class ConfigError(MfhError):
    """A pipeline file or a setting is wrong: unknown key, bad value, conflicting values."""


class SourceError(MfhError):
    """A feed can not be read as configured: missing file, missing column, unknown source."""


class EmptyDayError(SourceError):
    """The feed holds no usable row for a day that was asked for."""


class OutsideFeedError(SourceError):
    """A day before the first or after the last day of the feed was asked for."""


class MissingPartitionError(MfhError):
    """A step needs a lake partition that has no manifest, so for readers it does not exist."""


class LakeError(MfhError):
    """The lake can not be written or read: no space, no permission, a damaged manifest."""


class ValidationFailedError(MfhError):
    """A day did not pass its data validation; nothing downstream may run on it."""


class WindowError(MfhError):
    """The training window or the held-out day holds no data for the requested day."""


class TrainingError(MfhError):
    """Training can not go on: a loss that is not finite, a task without any label."""


class BundleError(MfhError):
    """A model bundle is damaged or does not fit what it is loaded for."""


class CheckpointError(MfhError):
    """A training checkpoint is of another configuration or window, or does not fit the model that resumes from it."""


class TrainingInterruptedError(MfhError):
    """Training was asked to end (SIGTERM); its state is in a checkpoint, from which a retry goes on."""


class RecordError(MfhError):
    """A record of results can not be read: damaged, or its partition is only half there."""


class NewerSchemaError(RecordError):
    """A record was written by a newer version of this package than the one that reads it."""


class SchemaChangedError(MfhError):
    """A source column of the feature list is missing or of another type than it was; no feature was written."""


class FeatureRegistryError(MfhError):
    """Feast's registry does not hold the pipeline's feature list, and a run may not register it."""


class ModelRegistryError(MfhError):
    """The model registry can not be used: unreachable, an alias without a version, a version without its bundle."""


class OnlineStoreError(MfhError):
    """The online store can not be reached, or lost rows while it was written; writing again makes it whole."""


class SkewError(MfhError):
    """What is served online differs from what the offline join gives for the same moment."""
