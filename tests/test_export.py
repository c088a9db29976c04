"""The metrics table: complete, typed, the same in CSV and Parquet, harmless in a spreadsheet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from components.errors import ConfigError
from components.export import export_metrics
from simulator.report.table import SCHEMA, harmless, metrics_table
from tests.simulator.experiment_example import example
from tests.simulator.hostile import HOSTILE


def test_every_metric_segment_and_method_is_a_row_with_its_numbers() -> None:
    table = metrics_table(example())
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert len(rows) == sum(1 + len(m.variants) for m in example().metrics)
    for metric in example().metrics:
        mine = [r for r in rows if (r["metric"], r["segment"]) == (metric.name, metric.segment)]
        assert [r["method"] for r in mine] == ["plain", *(v.method for v in metric.variants)]
        plain = mine[0]
        for part in ("baseline", "treatment", "difference", "relative"):
            estimate = getattr(metric, part)
            for name in ("value", "low", "high", "se", "unit", "reason"):
                assert plain[f"{part}_{name}"] == getattr(estimate, name), (metric.name, part, name)
        assert plain["p_value"] == metric.difference.p_value
        assert (plain["margin"], plain["users"]) == (metric.margin, metric.users)
        for row, variant in zip(mine[1:], metric.variants, strict=True):
            assert row["relative_value"] == variant.relative.value
            assert row["note"] == variant.note


def test_both_formats_hold_the_same_table(tmp_path: Path) -> None:
    rows = export_metrics(example(), tmp_path / "m.parquet")
    assert export_metrics(example(), tmp_path / "m.csv") == rows
    stored = pq.read_table(tmp_path / "m.parquet")
    assert stored == metrics_table(example())
    types = {field.name: field.type for field in SCHEMA}
    options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    assert pyarrow.csv.read_csv(tmp_path / "m.csv", convert_options=options).to_pylist() == stored.to_pylist()


@pytest.mark.parametrize("name", ["m.xlsx", "m", "m.csv.gz", "missing/m.csv", "missing/m.parquet"])
def test_what_can_not_be_written_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        export_metrics(example(), tmp_path / name)


def test_a_spreadsheet_runs_no_name_as_a_formula() -> None:
    names = ["=1+1", "@SUM(A1)", "+1", "-1", "\tx", HOSTILE, "plain", None]
    table = pa.table({"name": pa.array(names, pa.string()), "value": [-1.0] * len(names)})
    safe = harmless(table)
    assert safe["name"].to_pylist() == ["'=1+1", "'@SUM(A1)", "'+1", "'-1", "'\tx", HOSTILE, "plain", None]
    assert safe["value"].to_pylist() == [-1.0] * len(names)
