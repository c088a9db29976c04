"""The documented feature list is the list, and everything that comes from it agrees with it."""

from pathlib import Path

from components.feature_list import catalogue, feature_list, service_name, snapshot_features
from components.feature_table import table_of
from components.inputs import crosses, input_spec
from tests.small_lake import Ended

PAGE = Path(__file__).resolve().parent.parent / "docs" / "features.md"
LISTED = catalogue(Ended.user_attributes)


def test_the_table_in_the_docs_is_the_list() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("<!-- features -->\n")[2].partition("\n<!-- /features -->")[0]
    assert shown == table_of(LISTED), "write the output of table_of into docs/features.md"


def test_every_feature_of_the_list_is_in_a_row_of_the_table() -> None:
    table = table_of(LISTED)
    for feature in LISTED:
        family = feature.name.removesuffix(f"_{feature.window_days}d")
        assert f"| `{feature.name}` |" in table or f"| `{family}_{{n}}d` |" in table, feature.name


def test_names_are_unique_and_everything_is_stated() -> None:
    names = [feature.name for feature in LISTED]
    assert len(set(names)) == len(names)
    assert all(feature.meaning and feature.source and feature.view for feature in LISTED)


def test_a_cross_is_made_of_features_of_the_list_and_is_an_input_of_the_pair() -> None:
    spec = input_spec(feature_list(Ended.user_attributes))
    parts = {feature.name for feature in LISTED if feature.role == "part"}
    assert {cross.name for cross in crosses()} == {f.name for f in LISTED if f.entity == "pair"}
    assert {name for cross in crosses() for name in (cross.keys, cross.values)} == parts
    assert {cross.item for cross in crosses()} <= set(spec.video_columns)
    assert {cross.name for cross in spec.crosses} <= set(spec.context_columns) & set(spec.numeric)


def test_another_list_of_inputs_is_another_service_and_statistics_make_none() -> None:
    short = feature_list(())
    assert service_name(short) != service_name(feature_list(Ended.user_attributes))
    assert service_name(short) == service_name(feature_list(()))
    statistics = {f.name for e in ("user", "video") for f in snapshot_features(e)} - {f.name for f in short}  # type: ignore[arg-type]
    assert len(statistics) > 100
