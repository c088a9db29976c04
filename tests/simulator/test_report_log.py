"""The parts of the report page on other methods, the log alone, agreement and the running series."""

import pytest

from simulator.experiment import Estimate
from simulator.offpolicy.record import OffPolicy
from simulator.report import numbers
from simulator.report.log_alone import ESTIMATORS
from simulator.report.page import render
from tests.simulator.experiment_example import example
from tests.simulator.hostile import HOSTILE
from tests.simulator.log_example import agreement, replay, series
from tests.simulator.page_reader import Page, page, parsed, written, written_in_one_row

NBSP = numbers.SPACE


def test_the_smallest_detectable_effects_are_written() -> None:
    shown = [m for m in example().metrics if m.detectable is not None]
    assert len(shown) == 2
    for m in shown:
        assert m.detectable is not None
        assert written_in_one_row(f"{numbers.whole(m.users)} users", numbers.number(m.detectable, m.difference.unit))
    assert written_in_one_row(f"6.51{NBSP}s", f"1.6{NBSP}%")


def test_every_method_stands_beside_the_plain_number() -> None:
    for m in example().metrics:
        if m.variants:
            assert written_in_one_row("Plain", *written(m.difference, signed=True), *written(m.relative, signed=True))
        for v, name in zip(m.variants, ("CUPED", "Winsorised", "Bootstrap"), strict=False):
            assert written_in_one_row(
                name, v.note, *written(v.difference, signed=True), *written(v.relative, signed=True)
            )


def test_the_page_says_whether_the_lift_of_new_users_is_different() -> None:
    for one in example().interactions:
        texts = [one.title, "New users", "Low activity, High activity", *written(one.difference, signed=True)]
        assert written_in_one_row(*texts), one
    assert written_in_one_row("App time", "0.006")


def test_every_replay_estimate_is_written_or_its_refusal() -> None:
    record = replay()
    for cell in record.cells:
        if cell.difference.value is None:
            assert written_in_one_row("IPS, SNIPS, Doubly robust", f"not estimable: {cell.difference.reason}")
            continue
        factor, unit = (100.0, "pp") if cell.unit == "share" else (1.0, cell.unit)
        d = cell.difference
        bounds = [None if x is None else factor * x for x in (d.low, d.high)]
        apart = Estimate(value=factor * (d.value or 0.0), low=bounds[0], high=bounds[1], unit=unit)
        texts = [ESTIMATORS[cell.estimator], *written(apart, signed=True)]
        for arm in (cell.treatment, cell.baseline):
            texts += written(Estimate(value=arm.value, low=arm.low, high=arm.high, unit=cell.unit))
        texts.append(numbers.p_value(d.p_value) if d.p_value is not None else d.reason or "")
        assert written_in_one_row(*texts), texts
    for text in (*record.notes, *record.left_out, "41", numbers.whole(record.rounds), f"56.8{NBSP}%"):
        assert text in parsed().text
    assert written_in_one_row("treatment", "73,387", f"12.5{NBSP}%", "4,272", "1,267", "18.3", "164", f"30.5{NBSP}%")
    assert written_in_one_row("New users", "baseline", "unknown")
    assert written_in_one_row("first 2 slots", "4,595", "221", "0.93", "unknown")


def test_what_is_less_asked_for_is_one_click_away() -> None:
    details = page().split("<details>")
    assert "Likes · low activity" not in details[0]
    assert any("Likes · low activity" in part for part in details[1:])
    assert "Seconds watched · all users" in page().split("Other rewards and segments")[0]


def test_a_day_that_can_not_be_replayed_says_why() -> None:
    nothing = OffPolicy(day="2026-03-11", reason=f"the feed logs nothing {HOSTILE}")
    found = Page(render(example().model_copy(update={"replay": nothing})))
    assert f"Nothing could be estimated: the feed logs nothing {HOSTILE}." in found.text
    assert "How far the log carries" not in found.text


def test_agreement_is_shown_with_its_state_and_reasons() -> None:
    record = agreement()
    assert record.detail in parsed().text
    assert written_in_one_row("All users", "4,595", "+0.22", "+0.14", "+0.08", "passed")
    assert written_in_one_row("New users", "260 users", "410", record.cells[1].reason or "", "not powered")
    assert f"99.375{NBSP}% intervals, 95{NBSP}% for all together" in parsed().text


def test_the_running_series_is_drawn_from_the_second_day_on() -> None:
    first, second = series()
    for point in first.points:
        running = Estimate(value=point.estimate, low=point.low, high=point.high, unit="percent")
        texts = [point.day, numbers.whole(point.users), *written(running, signed=True)]
        assert written_in_one_row(*texts, numbers.number(point.value, "percent", signed=True))
    assert written_in_one_row("2026-03-09", "left out: no user with this metric")
    assert second.reason in parsed().text
    assert "series-0-title" in page()
    assert "series-1-title" not in page()
    alone = render(example().model_copy(update={"series": (second,)}))
    assert "One day is no series yet" in alone
    nothing = second.model_copy(update={"points": (), "reason": "no day has an estimate"})
    assert "No day has an estimate yet." in render(example().model_copy(update={"series": (nothing,)}))


def test_the_page_without_a_series_is_the_page_of_the_day() -> None:
    assert "Day after day" not in render(example())
    assert "h-series" not in render(example())
    assert "h-series" in page()


@pytest.mark.parametrize(("name", "words"), [("holm", "Holm's correction"), ("benjamini-hochberg", "Benjamini and")])
def test_the_glossary_names_the_correction_that_was_made(name: str, words: str) -> None:
    found = render(example().model_copy(update={"multiplicity": name}))
    assert [w for w in ("Holm&#39;s correction", "Holm's correction", "Benjamini and") if w in found] == [words]


def test_every_statistic_of_the_page_is_in_the_glossary() -> None:
    glossary = page().split('id="h-glossary"')[1]
    for term in ("CUPED", "Winsorised", "Bootstrap", "Detectable", "IPS", "SNIPS", "Switch-DR", "Match rate"):
        assert f">{term}" in glossary or f"{term}," in glossary or f", {term}" in glossary, term
