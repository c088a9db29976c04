"""``experiment.json`` and the page say the same, both ways: no field forgotten, and no number from elsewhere."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from pydantic import ValidationError

from simulator.experiment import Experiment
from simulator.report import charts, inside_charts, numbers, series_chart
from simulator.report.compare import flat_settings
from simulator.report.page import render
from simulator.report.schema import NOT_SHOWN, experiment_schema
from simulator.report.trust_view import ladder
from tests.conftest import CHECKOUT
from tests.simulator.experiment_example import full, refused

DOCUMENTED = CHECKOUT / "docs" / "experiment.schema.json"
TEMPLATES = CHECKOUT / "simulator" / "report"


def test_the_documented_schema_is_the_records_own() -> None:
    assert json.loads(DOCUMENTED.read_text(encoding="utf-8")) == experiment_schema(), (
        "the record has changed: raise SCHEMA_VERSION if its meaning did, then 'mfh report schema --json "
        "docs/experiment.schema.json'"
    )


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a record with its path; places in lists and free keys are not told apart."""
    if isinstance(data, dict) and data:
        free = FREE.search(path) is not None
        for key, value in data.items():
            yield from leaves(value, f"{path}.*" if free else f"{path}.{key}".lstrip("."))
    elif isinstance(data, list) and data:
        for value in data:
            yield from leaves(value, f"{path}[]")
    else:
        yield path, data


# Objects whose keys are data.
FREE = re.compile(
    r"(refused|inputs|left_out|session_depth|app_time\.users|app_time\.quantiles|absent|lineage\.config.*)$"
)


# Values that not every text of their kind can be.
ALIKE = {"checks.documents[].href": "../../feature_report/ds=2026-03-12/feature_report.html"}


def changed(data: Any, wanted: str, path: str = "") -> Any:
    """A copy in which every value of one path is another value of its kind."""
    if isinstance(data, dict) and data:
        free = FREE.search(path) is not None
        return {
            key: changed(value, wanted, f"{path}.*" if free else f"{path}.{key}".lstrip("."))
            for key, value in data.items()
        }
    if isinstance(data, list) and data:
        return [changed(value, wanted, f"{path}[]") for value in data]
    return other(data) if path == wanted else data


def other(value: Any) -> Any:
    """Another value of the same kind; of a few words another one of the words."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 7
    if isinstance(value, float):
        return value * 1.37 + 0.1237
    if isinstance(value, str):
        return f"{value}~"
    return value


def words() -> list[list[str]]:
    """Every closed list of words in the schema."""
    found = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if "enum" in part:
                found.append(part["enum"])
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(experiment_schema())
    return found


def records_with(data: dict[str, Any], path: str) -> Iterator[Experiment]:
    """Valid records in which every value of the path is another one."""
    if path in ALIKE:
        yield Experiment.model_validate(replaced(data, path, ALIKE[path]))
        return
    try:
        yield Experiment.model_validate(changed(data, path))
        return
    except ValidationError:
        pass
    values = {value for found, value in leaves(data) if found == path}
    for closed in words():
        if values <= set(closed):
            for word in closed:
                if values != {word}:
                    yield Experiment.model_validate(replaced(data, path, word))
            return
    pytest.fail(f"no other value of {path} is valid: give the test one")


def replaced(data: Any, wanted: str, value: Any, path: str = "") -> Any:
    if isinstance(data, dict) and data:
        free = FREE.search(path) is not None
        return {
            key: replaced(one, wanted, value, f"{path}.*" if free else f"{path}.{key}".lstrip("."))
            for key, one in data.items()
        }
    if isinstance(data, list) and data:
        return [replaced(one, wanted, value, f"{path}[]") for one in data]
    return value if path == wanted else data


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its drawings: they cost most of the time, and tables say the same."""
    for module, names in (
        (charts, ("forest", "bins")),
        (series_chart, ("draw",)),
        (inside_charts, ("gains", "curves", "heat_map")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, _instead)


def _instead(*args: object, **kwargs: object) -> Markup:
    """What a drawing would be made from, in place of the drawing."""
    return Markup("<svg data-of='%s'></svg>") % f"{args}{kwargs}"


RECORDS = (full, refused)


def paths(record: Experiment) -> dict[str, list[Any]]:
    """Values by path, of what is filled; an empty list says nothing of its members."""
    found: dict[str, list[Any]] = {}
    for path, value in leaves(json.loads(record.model_dump_json())):
        found.setdefault(path, []).append(value)
    return {path: values for path, values in found.items() if any(one not in (None, [], {}) for one in values)}


def declared() -> set[str]:
    """Every path that any of the records has, filled or not."""
    return {path for record in RECORDS for path, _ in leaves(json.loads(record().model_dump_json()))}


def test_the_examples_have_every_field_of_the_schema() -> None:
    filled = {path for record in RECORDS for path in paths(record())}
    deeper = {path for path in declared() if any(one.startswith((f"{path}[]", f"{path}.")) for one in filled)}
    assert declared() - filled - deeper - set(NOT_SHOWN) == set()


def test_every_field_is_on_a_page_or_listed_with_a_reason(undrawn: None) -> None:
    silent: set[str] = set()
    spoken: set[str] = set()
    for record in (one() for one in RECORDS):
        data, page = json.loads(record.model_dump_json()), render(record)
        for path in set(paths(record)) - set(NOT_SHOWN) - spoken:
            changes = any(render(one) != page for one in records_with(data, path))
            (spoken if changes else silent).add(path)
    assert silent - spoken == set(), "these change no page: show them, or say in schema.NOT_SHOWN why not"
    assert set(NOT_SHOWN) <= declared(), "these are no fields any more"
    assert all(len(reason) > 20 for reason in NOT_SHOWN.values())


class Texts(HTMLParser):
    """Texts of a page outside its drawings and its stylesheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside += tag in ("svg", "style")

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in ("svg", "style")

    def handle_data(self, data: str) -> None:
        if not self._inside and re.search(r"\d", data):
            self.texts.append(data)


def static_texts() -> set[str]:
    """What the templates and views themselves write with digits in it."""
    found = set()
    for file in TEMPLATES.glob("*.html"):
        source = file.read_text(encoding="utf-8")
        found |= set(re.findall(r'term\("([^"]*\d[^"]*)"', source))
        text = re.sub(r"{%.*?%}|{{.*?}}", "\0", source, flags=re.S)
        for part in re.split(r"\0|<[^>]*>", text):
            if re.search(r"\d", part):
                found.add(" ".join(part.split()))
    for file in Path(TEMPLATES).glob("*_view.py"):
        found |= set(re.findall(r'"([^"{}]*\d[^"{}]*)"', file.read_text(encoding="utf-8")))
    return found


def test_every_number_of_the_page_comes_from_the_record(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    written: set[str] = set()
    values: list[tuple[str, float]] = []

    def spy(name: str) -> None:
        real = getattr(numbers, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            text = real(*args, **kwargs)
            written.add(text)
            if args and isinstance(args[0], int | float):
                values.append((text, float(args[0])))
            return text

        monkeypatch.setattr(numbers, name, wrapped)

    for name in ("number", "value", "interval", "p_value", "quality", "whole", "percentage", "duration"):
        spy(name)
    record = full()
    page = render(record)
    known = {round(one, 9) for one in derived(record)}
    strangers = sorted({text for text, value in values if round(value, 9) not in known})
    assert strangers == [], "formatted numbers that are neither in the record nor derived from it as documented"

    data = json.loads(record.model_dump_json())
    strings = written | {value for _, value in leaves(data) if isinstance(value, str)} | keys(data)
    strings |= {rung.name for rung in ladder(())} | static_texts()
    strings |= {text for _, text in flat_settings(record.lineage.config)}
    strings = {text for text in strings if re.search(r"\d", text)}
    ordered = sorted(strings, key=len, reverse=True)
    left = {}
    for text in Texts(page).texts:
        rest = " ".join(text.split()) if numbers.SPACE not in text else text
        for one in ordered:
            if one in rest:
                rest = rest.replace(one, " ")
        if re.search(r"\d", rest):
            left[text.strip()] = rest.strip()
    assert left == {}, "digits that no field and no template explains"


def keys(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data) | {key for value in data.values() for key in keys(value)}
    return {key for value in data for key in keys(value)} if isinstance(data, list) else set()


def derived(record: Experiment) -> Iterator[float]:
    """Numbers of the record, and what the page may compute from them; docs/report.md lists the same."""
    for _, value in leaves(json.loads(record.model_dump_json())):
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Shares of replay as percentage points, ratios of diagnostics as percent, a share of users rounded.
            yield from (float(value), 100.0 * value, round(float(value), 3))
    spreads = [list(counts) for counts in record.session_depth.values()]
    for counts in spreads:
        edges, first, last = [], 1, 1
        while first <= max(map(len, spreads)):
            edges.append((first, last))
            first, last = last + 1, 2 * last
        sums = [sum(counts[a - 1 : b]) for a, b in edges]
        yield from (float(sum(counts)), *map(float, sums), *(one / sum(counts) for one in sums))
    assert record.app_time is not None
    for users in record.app_time.users.values():
        yield from (float(sum(users)), *(one / max(sum(users), 1) for one in users))
    quality = {(q.arm, q.task, q.metric, q.group): q.value for q in record.quality}
    for (arm, *rest), value in quality.items():
        baseline = quality.get(("baseline", *rest))  # type: ignore[arg-type]
        if arm == "treatment" and value is not None and baseline is not None:
            yield value - baseline
    assert record.certificate is not None
    pairs = [(c.logged, c.baseline) for c in record.calibration]
    pairs += [(c.logged, c.simulated) for c in record.certificate.backtest]
    yield from (100 * (b / a - 1) for a, b in pairs if a and b is not None)
    # Counts of things that are listed: rungs, states, warnings, settings.
    yield from map(float, range(30))
