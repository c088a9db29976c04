"""The JSON Schema of ``experiment.json``, and which of its fields a page does not show, and why."""

from typing import Any

from simulator.experiment import SCHEMA_VERSION, Experiment


def experiment_schema() -> dict[str, Any]:
    """The schema as it is documented, generated from the records.

    Returns:
        JSON Schema, draft 2020-12.
    """
    schema = Experiment.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Version {SCHEMA_VERSION}; made by 'mfh report schema'.",
        **schema,
    }


_LEVEL = "a level is compared with nothing, so nothing is tested"
_ERROR = "the interval beside it says the same; comparisons and the running series are made from it"

_CURVES = "the curves are drawn from it, and the ratios in the table say what it means"
_V4 = ("replay", "rollouts", "difference")
_MOMENT = ("epoch", "train", "test")
_PARTS = ("agreement", "diagnostics", "replay")
_KEYS = ("certificate.backtest[].metric", "interactions[].metric", "series[].metric")

# Fields that no page shows, with the reason; a test holds that everything else is on it.
NOT_SHOWN: dict[str, str] = {
    **{f"metrics[].{arm}.p_value": _LEVEL for arm in ("baseline", "treatment")},
    **{f"replay.cells[].{arm}.p_value": _LEVEL for arm in ("baseline", "treatment")},
    **{f"metrics[].{part}.se": _ERROR for part in ("baseline", "treatment", "difference", "relative")},
    **{f"metrics[].variants[].{part}.se": _ERROR for part in ("difference", "relative")},
    "interactions[].difference.se": _ERROR,
    **{
        f"replay.cells[].{part}.{name}": _ERROR
        for part in ("baseline", "treatment", "difference")
        for name in ("se", "df")
    },
    **{
        f"agreement.cells[].{part}.{name}": _ERROR
        for part in ("replay", "rollouts", "difference")
        for name in ("se", "df")
    },
    **{f"agreement.cells[].{part}.p_value": "the intervals decide here, at a confidence of their own" for part in _V4},
    **{
        f"replay.cells[].{arm}.reason": "the difference of the arms names the same reason"
        for arm in ("baseline", "treatment")
    },
    **{f"diagnostics.overfitting[].{model}_{what}": _CURVES for model in ("model", "flat") for what in _MOMENT},
    **{f"diagnostics.curves[].{name}": _CURVES for name in ("step", "train_entries", "valid_entries")},
    **{f"{part}.schema_version": "the page names the schema version of the whole record" for part in _PARTS},
    **{
        f"{part}.day": "it is the day of the whole record, or its held-out day" for part in ("agreement", "diagnostics")
    },
    **dict.fromkeys(_KEYS, "the key of a title that is shown"),
    "diagnostics.gates[].kind": "how a gate makes its weights is the model's, and in its card",
    "diagnostics.gates[].rows": "rows of a group stand in the table of gains",
    "metrics[].variants[].relative.p_value": "the p-value of a method's difference is shown, and tests the same",
}
