"""The feature list as a Markdown table: ``docs/features.md`` holds it, and a test keeps the two equal."""

from components.feature_list import WINDOWS, Feature

_COLUMNS = ("feature", "entity", "window, days", "source", "dtype", "default", "read by models", "meaning")
_READ = {"input": "yes", "part": "through a pair's input", "statistic": "no"}


def table_of(features: tuple[Feature, ...]) -> str:
    """A row per feature; those that differ in their window alone share one.

    Args:
        features: The list, in order.

    Returns:
        Markdown.
    """
    rows: dict[tuple[str, ...], list[Feature]] = {}
    for feature in features:
        name, meaning = feature.name, feature.meaning
        if feature.window_days in WINDOWS and name.endswith(f"_{feature.window_days}d"):
            name = name.removesuffix(f"_{feature.window_days}d") + "_{n}d"
            meaning = meaning.replace(f"the last {feature.window_days} days", "the last n days")
            meaning = meaning.replace("the last day", "the last n days")
        rows.setdefault((name, meaning), []).append(feature)
    head = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    return "\n".join([*head, *(_row(name, meaning, group) for (name, meaning), group in rows.items())])


def _row(name: str, meaning: str, group: list[Feature]) -> str:
    first = group[0]
    windows = ", ".join(str(one.window_days) for one in group if one.window_days is not None)
    default = "empty" if first.is_list else "null" if first.default is None else repr(first.default)
    read = {one.role for one in group}
    if len(read) == 1:
        said = _READ[first.role]
    else:
        said = ", ".join(f"{one.window_days}" for one in group if one.role != "statistic")
    cells = (f"`{name}`", first.entity, windows or "-", f"`{first.source}`", first.dtype, default, said, meaning)
    return "| " + " | ".join(cells) + " |"
