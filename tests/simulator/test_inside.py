"""The report's section on the inside of the treatment: there when there are diagnostics, complete, and nothing else."""

import math
from collections import Counter
from functools import cache

import pytest

from simulator.experiment import Experiment
from simulator.report import numbers
from simulator.report.diagnostics import Diagnostics
from simulator.report.page import render
from tests.simulator.diagnostics_example import GROUPS, NO_AUC, NO_RATIO, TASKS, diagnostics
from tests.simulator.experiment_example import example
from tests.simulator.hostile import HOSTILE
from tests.simulator.test_report import Page

NBSP = numbers.SPACE
TITLE = "Inside the models"


def with_inside(record: Diagnostics | None = None) -> Experiment:
    return example().model_copy(update={"diagnostics": record or diagnostics()})


@cache
def page() -> str:
    return render(with_inside())


@cache
def parsed() -> Page:
    return Page(page())


def shown(**changes: object) -> Page:
    return Page(render(with_inside(diagnostics().model_copy(update=changes))))


def rows_of(found: Page, title: str) -> list[str]:
    """Rows below the row group of a title, up to the next group."""
    at = next(number for number, row in enumerate(found.rows) if row.strip() == title)
    below = found.rows[at + 1 :]
    known = next((number for number, row in enumerate(below) if row.strip() in GROUP_TITLES), len(below))
    return below[:known]


GROUP_TITLES = {
    *TASKS,
    *(f"{task} · {metric}" for task in TASKS for metric in ("AUC", "GAUC", "Squared error")),
}


def test_without_diagnostics_the_page_is_as_it_was() -> None:
    assert TITLE not in render(example())
    assert TITLE in page()
    assert "diagnostics.json" not in render(example())
    assert "Improvement ratio" not in render(example())


def test_the_same_record_gives_the_same_bytes_also_through_json() -> None:
    again = Diagnostics.model_validate_json(diagnostics().model_dump_json())
    assert again == diagnostics()
    assert render(with_inside(again)) == page()


def test_every_gain_is_written_with_its_sign() -> None:
    names = {"auc": "AUC", "gauc": "GAUC", "mse": "Squared error"}
    for one in diagnostics().gains:
        rows = rows_of(parsed(), f"{one.task} · {names[one.metric]}")
        if one.single is None:
            assert any(f"not estimable: {NO_AUC}" in row and "New users" in row for row in rows)
            continue
        expected = [numbers.quality(one.single), numbers.quality(one.model), numbers.quality(one.gain, signed=True)]
        expected += [numbers.whole(one.rows), numbers.whole(one.positives)]
        assert any(all(text in row for text in expected) for row in rows), one
    assert any(f"+1.5{NBSP}%" in row for row in rows_of(parsed(), "completion · Squared error"))


def test_every_ratio_is_written_or_its_reason() -> None:
    for one in diagnostics().overfitting:
        rows = rows_of(parsed(), one.task)
        if one.ratio is None:
            assert any(f"not estimable: {NO_RATIO}".replace(" %", f"{NBSP}%") in row for row in rows)
        else:
            assert any(f"{one.ratio:.2f}" in row for row in rows), one
    (first, *_) = rows_of(parsed(), "like")
    assert f"training +0.84{NBSP}%, held-out +2.1{NBSP}%" in first
    # The rises of both models at the end.
    assert f"+1.2{NBSP}%" in first
    assert f"+3.5{NBSP}%" in first


def test_figures_are_drawn_for_gains_tasks_and_trees() -> None:
    tags = parsed().tags
    titles = [attributes["id"] for tag, attributes in tags if tag == "title" and "id" in attributes]
    mine = [one for one in titles if one and one.split("-")[0] in ("gains", "curves", "gates")]
    assert mine == [
        "gains-auc-title",
        "gains-mse-title",
        *(f"curves-{number}-title" for number in range(len(TASKS))),
        "gates-0-title",
        "gates-1-title",
    ]
    assert parsed().text.count("ratio 1.79") == 2 * len(TASKS), "in the panel of new users and in its description"
    assert "The dotted line is where the day's own treatment stopped." in parsed().text


def test_every_weight_of_a_gate_of_a_task_is_in_the_heat_map() -> None:
    found = Counter(text for text in parsed().text.split() if text.startswith(".") and text[1:].isdigit())
    expected: Counter[str] = Counter()
    for one in diagnostics().gates:
        if one.branch != "shared":
            # A gate above the tasks is drawn in the row of each.
            expected[f"{one.weight:.2f}".lstrip("0")] += 1 if one.task else len(TASKS)
    assert found == expected
    assert "level 1 branches by user group, alike for all tasks; level 2 branches by task" in parsed().text


def test_a_screen_reader_still_finds_its_way() -> None:
    assert not parsed().unbalanced
    assert not parsed().open
    ids = [attributes["id"] for _, attributes in parsed().tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    count = Counter(tag for tag, _ in parsed().tags)
    assert count["table"] == count["caption"]
    assert count["svg"] == count["desc"] == (2 + 2) + 2 + len(TASKS) + 2
    assert all("scope" in attributes for tag, attributes in parsed().tags if tag == "th")


def test_nothing_is_loaded_and_hostile_names_are_text() -> None:
    tasks = diagnostics().tasks
    hostile = tasks[0].model_copy(update={"name": HOSTILE})
    changes = {"treatment": HOSTILE, "notes": (HOSTILE,), "tasks": (hostile, *tasks[1:])}
    found = render(with_inside(diagnostics().model_copy(update=changes)))
    assert "<script" not in found.lower()
    assert "url(http" not in found
    assert HOSTILE in Page(found).text


def test_notes_stand_before_the_numbers() -> None:
    text = shown(notes=("The treatment began warm.",)).text
    assert TITLE in text[: text.index("The treatment began warm.")]
    assert "Gain over single-task models" in text[text.index("The treatment began warm.") :]


def test_what_a_record_does_not_have_is_said() -> None:
    found = shown(gains=(), curves=(), overfitting=(), gates=(), kind="single")
    assert not found.unbalanced
    assert "The record has no gain." in found.text
    assert "The record has no curve." in found.text
    assert "A model of the kind single has no gates." in found.text
    assert "Not drawn" not in found.text


def test_a_group_without_a_curve_has_an_empty_panel() -> None:
    curves = tuple(
        one.model_copy(update={"valid_loss": None, "train_loss": None}) if one.group == "new" else one
        for one in diagnostics().curves
    )
    assert "no loss" in shown(curves=curves).text


def test_six_tasks_are_drawn_and_the_others_named() -> None:
    task = diagnostics().tasks[1]
    tasks = tuple(task.model_copy(update={"name": f"task {number}"}) for number in range(8))
    found = shown(tasks=tasks)
    assert "Not drawn: task 6, task 7; the table has them." in found.text


@pytest.mark.parametrize(("bundle_epochs", "words"), [(2.0, True), (5.0, False)])
def test_the_mark_stands_only_where_the_curves_go_on(bundle_epochs: float, words: bool) -> None:
    assert ("The dotted line" in shown(bundle_epochs=bundle_epochs).text) is words


def test_narrow_cells_have_no_numbers() -> None:
    """A gate over many experts: tints, and the range in the description."""
    experts = 26
    one = next(gate for gate in diagnostics().gates if gate.task)
    gates = tuple(
        one.model_copy(update={"group": group, "expert": f"expert {number + 1}", "weight": 1 / experts})
        for group in GROUPS
        for number in range(experts)
    )
    found = shown(gates=gates)
    assert "Weights lie between 0.04 and 0.04." in found.text
    assert not [text for text in found.text.split() if text == ".04"]
    assert "expert 26" in found.text


def test_the_gate_over_trees_has_a_figure_of_its_own() -> None:
    one = next(gate for gate in diagnostics().gates if gate.task)
    merged = tuple(
        one.model_copy(
            update={"block": "merge", "tree": None, "level": 3, "expert": f"tree {tree}", "weight": 0.5, "group": group}
        )
        for group in GROUPS
        for tree in (1, 2)
    )
    found = shown(gates=(*diagnostics().gates, *merged))
    assert "Between the trees" in found.text
    assert "tree 2" in found.text


def test_a_share_that_is_no_number_is_never_written_as_one() -> None:
    gains = tuple(one.model_copy(update={"relative": None, "reason": "why not"}) for one in diagnostics().gains)
    found = shown(gains=gains)
    assert "not estimable: why not" in found.text
    assert "nan" not in found.text.lower().split()
    assert not math.isnan(diagnostics().bundle_epochs)


def test_the_page_stays_small() -> None:
    assert len(page().encode()) < 400_000
