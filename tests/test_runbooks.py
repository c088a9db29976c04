"""Every task that can fail has a runbook, and its page in Airflow links there."""

import re
from pathlib import Path

import pytest

from components.freshness import missing
from components.steps import STEPS
from tests.small_lake import context_at, day_at

ROOT = Path(__file__).resolve().parent.parent
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """Anchor to text."""
    parts = re.split(r"^## (\S+)$", RUNBOOKS, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_every_step_has_a_runbook_that_says_what_stops_and_what_mends(step: str) -> None:
    text = sections()[step]
    other = re.search(r"As \[(\w+)\]", text)
    assert ("Stops:" in text and "Mends:" in text) or (other is not None and other[1] in sections())


def test_links_inside_the_runbooks_lead_somewhere() -> None:
    anchors = sections()
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", RUNBOOKS) if link not in anchors] == []
    for file, _ in re.findall(r"\]\(([\w./-]+\.md)(#[\w-]+)?\)", RUNBOOKS):
        assert (ROOT / "docs" / file).exists()


def test_an_alert_links_to_a_runbook_that_is_there(tmp_path: Path) -> None:
    late = missing(context_at(tmp_path), day_at(4))
    assert late is not None
    path, _, anchor = late.runbook.partition("#")
    assert (ROOT / path).exists()
    assert anchor in sections()
