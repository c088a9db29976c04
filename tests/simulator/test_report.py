"""The report page: complete, self-contained, accessible, harmless and always the same bytes."""

import base64
import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import matplotlib as mpl
import pytest
from pydantic import ValidationError

from simulator.experiment import Estimate, Experiment
from simulator.report import numbers
from simulator.report.page import render
from simulator.result import Unit
from simulator.surroundings import Document
from tests.simulator.diagnostics_example import TASKS
from tests.simulator.experiment_example import example, full, metric, without_new_users
from tests.simulator.hostile import HOSTILE, HOSTILE_ATTRIBUTE
from tests.simulator.page_reader import Page, page, parsed, written
from tests.simulator.surroundings_example import checks

NBSP = numbers.SPACE
# Forest plots, a running series, depths and app time; gains, curves per task and gates of the diagnostics.
SVGS = 2 + 1 + 2 + (2 + len(TASKS) + 2)


def test_the_same_record_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from simulator.report.page import render;"
        "from tests.simulator.experiment_example import full;"
        "print(hashlib.sha256(render(full()).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert render(full()) == page()
    assert other.stdout.strip() == hashlib.sha256(page().encode()).hexdigest()


def test_the_readers_own_matplotlib_settings_change_nothing() -> None:
    with mpl.rc_context({"font.size": 31.0, "svg.fonttype": "path", "axes.grid": True}):
        assert render(full()) == page()
        assert mpl.rcParams["font.size"] == 31.0


def test_importing_the_package_does_not_import_matplotlib() -> None:
    code = "import sys, simulator.report, simulator.report.numbers; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_metric_is_written_with_all_its_numbers() -> None:
    titles = {m.name: m.title for m in example().metrics}
    for m in example().metrics:
        assert titles[m.name] in parsed().text
        expected = [f"{numbers.whole(m.users)} users"]
        if m.baseline.value is None:
            expected.append(f"not estimable: {m.baseline.reason}")
        else:
            expected += written(m.baseline) + written(m.treatment)
            expected += written(m.difference, signed=True) + written(m.relative, signed=True)
            expected.append(f"unadjusted {numbers.p_value(m.difference.p_value)}")
        if m.p_adjusted is not None:
            expected.append(numbers.p_value(m.p_adjusted))
        if m.margin is not None:
            expected.append(numbers.number(m.margin, m.difference.unit))
        if m.exploratory:
            expected.append("exploratory")
        assert any(all(text in row for text in expected) for row in parsed().rows), (m.name, m.segment, expected)


def test_every_other_number_is_written() -> None:
    e = example()
    expected = [[numbers.whole(e.users)], [numbers.whole(e.sessions)], [numbers.percentage(e.confidence)]]
    assert all(text in parsed().text for texts in expected for text in texts)
    rows = [
        *[
            [
                numbers.number(x, c.unit) if x is not None else f"not estimable: {c.reason}"
                for x in (c.logged, c.baseline, c.treatment)
            ]
            for c in e.calibration
        ],
        *[[numbers.quality(q.value, q.reason), numbers.whole(q.rows)] for q in e.quality],
        *[[numbers.whole(q.positives)] for q in e.quality if q.positives is not None],
        *[[numbers.whole(arm.parameters)] for arm in e.arms],
        *[[numbers.whole(arm.rows)] for arm in e.arms],
        *[
            [d.day, numbers.whole(d.rows), str(d.expectations), *[numbers.whole(x) for x in d.refused.values()]]
            for d in e.data
        ],
        [numbers.whole(sum(counts)) for counts in e.session_depth.values()],
    ]
    for texts in rows:
        assert any(all(text in row for text in texts) for row in parsed().rows), texts


def test_session_depths_are_summed_in_doubling_bins() -> None:
    treatment = example().session_depth["treatment"]
    row = next(row for row in parsed().rows if row.split()[:1] == ["5–8"])
    assert numbers.whole(sum(treatment[4:8])) in row
    assert numbers.number(sum(treatment[4:8]) / sum(treatment), "share") in row
    assert any(row.split()[:1] == [f"17–{len(treatment)}"] for row in parsed().rows)


def test_verdict_caveats_and_every_rung_are_in_words() -> None:
    e = example()
    words = (
        e.verdict.sentence,
        *e.verdict.reasons,
        *e.caveats,
        e.sample_ratio,
        e.lineage.reproduce,
        "Not enough evidence",
    )
    assert all(text in parsed().text for text in words)
    for rung in e.trust:
        assert any(rung.name in row and rung.state in row and rung.detail in row for row in parsed().rows)
    # V5 is not in the record: its absence is said, not passed over.
    assert any("V5" in row and "missing" in row for row in parsed().rows)


@pytest.mark.parametrize(("decision", "word"), [("ship", "Ship"), ("hold", "Hold")])
def test_the_chip_says_the_decision(decision: str, word: str) -> None:
    verdict = example().verdict.model_copy(update={"decision": decision})
    found = render(example().model_copy(update={"verdict": verdict}))
    assert f"</span>{word}</span>" in found
    assert f"<title>{word} · daily_world · 2026-03-12</title>" in found


@pytest.mark.parametrize(
    ("levels", "higher_is_better", "words"),
    [
        ((10.0, 10.0), True, "interval within"),
        ((10.0, 9.0), True, "interval across"),
        ((10.0, 8.0), True, "interval beyond"),
        ((10.0, 8.0), False, "interval within"),
        ((10.0, 12.0), False, "interval beyond"),
    ],
)
def test_where_the_interval_lies_against_the_margin(
    levels: tuple[float, float], higher_is_better: bool, words: str
) -> None:
    one = metric("g", "G", "guardrail", "all", levels, half=0.05, margin=1.0, higher_is_better=higher_is_better)
    found = Page(render(example().model_copy(update={"metrics": (one,)})))
    assert any(f"1.00{NBSP}s" in row and words in row for row in found.rows)


def test_nothing_is_loaded_and_nothing_runs() -> None:
    assert "<script" not in page().lower()
    tags = parsed().tags
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not any("//" in (text or "") for text in attributes.values()), (tag, attributes)
        if tag == "a" and not (attributes["href"] or "").startswith("#"):
            assert attributes["href"] in {document.href for document in checks().documents}
            assert (attributes["target"], attributes["rel"]) == ("_blank", "noopener")
            continue
        for name in ("href", "xlink:href", "src"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(re.search(r"url\((?!#)", text or "") for text in attributes.values())
    assert "url(" not in parsed().style
    assert "@import" not in parsed().style


def test_the_policy_allows_this_very_stylesheet_and_nothing_else() -> None:
    digest = base64.b64encode(hashlib.sha256(parsed().style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in parsed().tags
    # An inline style would need a looser policy, so there is none, not in the drawings either.
    assert not [tag for tag, attributes in parsed().tags if "style" in attributes]
    assert Counter(tag for tag, _ in parsed().tags)["style"] == 1


@pytest.mark.parametrize("href", ["javascript:alert(1)", "https://example.invalid/", "../../../passwd", "//x/y.html"])
def test_a_link_leads_to_a_page_of_the_lake_or_is_refused(href: str) -> None:
    with pytest.raises(ValidationError):
        Document(title="Data Docs", href=href)


def test_hostile_names_are_text() -> None:
    assert HOSTILE in parsed().text
    assert HOSTILE_ATTRIBUTE in parsed().text
    record = example()
    hostile = record.metrics[0].model_copy(update={"title": f"$x^$ {HOSTILE}", "name": HOSTILE_ATTRIBUTE})
    depths = {HOSTILE: (1, 2), "log": (0, 0)}
    arms = tuple(arm.model_copy(update={"model": HOSTILE}) for arm in record.arms)
    changed = {"metrics": (hostile,), "session_depth": depths, "arms": arms}
    found = render(record.model_copy(update=changed))
    assert "<script" not in found.lower()
    assert not any(name.startswith("on") for _, attributes in Page(found).tags for name in attributes)
    assert f"$x^$ {HOSTILE}" in Page(found).text


def test_a_screen_reader_finds_its_way() -> None:
    tags = parsed().tags
    count = Counter(tag for tag, _ in tags)
    assert not parsed().unbalanced
    assert not parsed().open
    assert page().startswith('<!DOCTYPE html>\n<html lang="en">')
    assert count["main"] == count["h1"] == count["header"] == count["footer"] == 1
    assert count["table"] == count["caption"] > 0
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert count["svg"] == count["desc"] == SVGS
    for _, attributes in tags:
        for name in ("aria-labelledby", "href", "xlink:href"):
            if attributes.get("target") == "_blank":
                continue
            assert {(part or "").lstrip("#") for part in (attributes.get(name) or "").split()} <= set(ids)
    used = set(re.findall(r"url\(#([^)]+)\)", page()))
    assert used <= set(ids)


def test_a_day_without_new_users_says_why() -> None:
    found = Page(render(without_new_users()))
    reason = "not estimable: no new user opened a session on the held-out day"
    rows = [row for row in found.rows if "New users" in row and reason in row]
    assert len(rows) == sum(m.segment == "new" for m in example().metrics)
    assert all("0 users" in row for row in rows)


def test_an_experiment_with_nothing_but_its_frame() -> None:
    bare: dict[str, object] = {
        "metrics": (),
        "calibration": (),
        "session_depth": {},
        "quality": (),
        "data": (),
        "caveats": (),
        "trust": (),
        "interactions": (),
        "replay": None,
        "agreement": None,
    }
    found = Page(render(example().model_copy(update=bare)))
    assert not found.unbalanced
    assert sum("The record says nothing about this rung." in row for row in found.rows) == 6
    assert "The record has no primary metric." in found.text
    assert "The record has no replay of the logged slots." in found.text
    assert "The record does not compare them." in found.text
    assert "Day after day" not in found.text
    render(example().model_copy(update={"session_depth": {"treatment": (), "log": ()}}))


def test_the_page_is_small() -> None:
    assert len(page().encode()) < 300_000


def test_the_record_survives_json() -> None:
    again = Experiment.model_validate_json(full().model_dump_json())
    assert again == full()
    assert render(again) == page()


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (312.44, "s", False, f"312.4{NBSP}s"),
        (9.876, "s", True, f"+9.88{NBSP}s"),
        (1602.4, "s", False, f"1,602{NBSP}s"),
        (0.0, "s", True, f"0.0{NBSP}s"),
        (0.4132, "share", False, f"41.3{NBSP}%"),
        (0.00434, "share", False, f"0.43{NBSP}%"),
        (1.0, "share", False, f"100.0{NBSP}%"),
        (1.254, "pp", True, f"+1.25{NBSP}pp"),
        (-0.16, "pp", True, f"−0.16{NBSP}pp"),
        (0.0042, "pp", True, f"+0.0042{NBSP}pp"),
        (4.53, "percent", True, f"+4.5{NBSP}%"),
        (-4.53, "percent", False, f"−4.5{NBSP}%"),
        (148.6, "count", False, "149"),
        (12_480.0, "count", False, "12,480"),
        (1.284, "count", False, "1.28"),
        (0.00312, "count", False, "0.0031"),
        (-1e-12, "count", True, "0.000000"),
        (None, "s", False, "not estimable: the record gives no reason"),
        (math.nan, "s", False, "not estimable: the value is not a finite number"),
        (math.inf, "share", True, "not estimable: the value is not a finite number"),
    ],
)
def test_number(value: float | None, unit: Unit, signed: bool, text: str) -> None:
    assert numbers.number(value, unit, signed=signed) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "signed", "text"),
    [
        (1.2, 11.8, "s", True, f"+1.2 to +11.8{NBSP}s"),
        (-0.5, 0.25, "pp", True, f"−0.50 to +0.25{NBSP}pp"),
        (0.1, 0.2, "share", False, f"10.0 to 20.0{NBSP}%"),
        (0.0005, 0.0061, "count", False, "0.0005 to 0.0061"),
        (1.5, None, "percent", True, f"at least +1.5{NBSP}%"),
        (None, 1.5, "percent", True, f"at most +1.5{NBSP}%"),
        (None, None, "s", False, ""),
    ],
)
def test_interval(low: float | None, high: float | None, unit: Unit, signed: bool, text: str) -> None:
    assert numbers.interval(Estimate(value=0.0, low=low, high=high, unit=unit), signed=signed) == text


def test_a_value_has_the_digits_of_its_interval() -> None:
    estimate = Estimate(value=0.004, low=-8.0, high=12.0, unit="s")
    assert numbers.value(estimate, signed=True) == f"0.0{NBSP}s"
    assert numbers.value(Estimate(value=None, unit="s", reason="no user")) == "not estimable: no user"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, f"<{NBSP}0.001"),
        (0.000999, f"<{NBSP}0.001"),
        (0.001, "0.001"),
        (0.0123, "0.012"),
        (1.0, f">{NBSP}0.999"),
        (None, "not estimable: too few users"),
    ],
)
def test_p_value(p: float | None, text: str) -> None:
    assert numbers.p_value(p, "too few users") == text


def test_quality_counts_and_percentages() -> None:
    assert numbers.quality(0.73124) == "0.7312"
    assert numbers.quality(-0.0087, signed=True) == "−0.0087"
    assert numbers.quality(1234.5) == "1,234.5"
    assert numbers.quality(None, "one class") == "not estimable: one class"
    assert numbers.whole(1_284_611) == "1,284,611"
    assert numbers.percentage(0.95) == f"95{NBSP}%"
    assert numbers.percentage(0.975) == f"97.5{NBSP}%"
