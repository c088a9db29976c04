"""A fixed ``experiment.json`` renders to the same page, and a page of any size stays one that opens."""

import pytest

from simulator.experiment import Experiment
from simulator.report.page import render
from tests.simulator.golden import FOLDER, HASH_ALONE, RECORDS, digest, texts
from tests.simulator.many_segments import SEGMENTS, many_segments
from tests.simulator.page_reader import Page

AGAIN = "if the change is meant: python -m tests.simulator.golden, and read the diff"


@pytest.mark.parametrize("name", RECORDS)
def test_a_fixed_record_renders_to_the_same_page(name: str) -> None:
    page = render(RECORDS[name]())
    if name not in HASH_ALONE:
        assert texts(page) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8"), AGAIN
    hashes = dict(reversed(line.split()) for line in (FOLDER / "sha256").read_text().splitlines())
    assert digest(page) == hashes[f"{name}.html"], AGAIN


def test_the_golden_file_is_a_record_and_gives_the_golden_page() -> None:
    record = Experiment.model_validate_json((FOLDER / "experiment.json").read_bytes())
    assert texts(render(record)) == (FOLDER / "full.txt").read_text(encoding="utf-8")


def test_thousands_of_segments_stay_a_page_that_says_how_many_it_left_out() -> None:
    page = render(many_segments())
    found = Page(page)
    assert len(page.encode()) < 2_000_000
    assert "<script" not in page.lower()
    shown = sum("country" in row and "17 users" in row for row in found.rows)
    assert 100 < shown < 200
    assert f"{SEGMENTS - shown:,} more rows of segments are not on this page" in " ".join(found.text.split())
    # The pipeline's own segments come first, whatever else there is.
    rows = [row for row in found.rows if "users" in row]
    assert all(name in row for name, row in zip(("All users", "New users", "Low activity"), rows, strict=False))
