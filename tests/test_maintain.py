"""Maintenance removes what nothing needs, and whatever lies in the lake never what a champion, report or job needs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from components import maintain
from components.cli import app
from components.context import Context
from components.errors import LakeError
from components.feature_list import LONGEST_WINDOW
from components.lake import MANIFEST, Partition
from components.maintain import REPORTED, bundles_that_serve, plan, remove
from components.promote import promote
from tests.registry_lake import analysed
from tests.small_lake import context_at, day_at

pytest_plugins = ["tests.registry_lake"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD = NOW - timedelta(days=30)
NEWEST = 90
RETENTION = {"data_days": 40, "work_days": 20, "report_days": 60, "grace_hours": 48}
# With a window of one day, values that live three days and sums over the longest window.
WINDOW_DAYS = 1 + 1 + 4 + LONGEST_WINDOW


def context_of(home: Path, **retention: Any) -> Context:
    return context_at(home, retention=RETENTION | retention, train={"window_days": 1})


def written(
    context: Context, dataset: str, index: int, *contents: str, inputs: tuple[Partition, ...] = (), fresh: bool = False
) -> Partition:
    """A partition with a version per content, the last one named by the manifest; old unless told."""
    lake = context.data if dataset in DATA else context.runs
    for content in contents or ("x",):
        hashes = {f"{one.manifest.dataset}/{one.manifest.day}": one.content_hash for one in inputs}
        with lake.write(dataset, day_at(index), inputs=hashes) as writer:
            writer.text("content.txt", f"{dataset} {index} {content}")
    partition = lake.get(dataset, day_at(index))
    folder = Path(partition.folder).parent
    for path in [folder, *folder.rglob("*")]:
        moment = (NOW if fresh else OLD).timestamp()
        os.utime(path, (moment, moment))
    return partition


DATA = ("log", "user_features", "examples")
RUNS = ("training_set", "model_treatment", "rollouts-0-of-1", "experiment", "report")


def gone(context: Context, bundles: set[str] | None = None) -> list[tuple[str, str]]:
    """Kind, and place below the lake, of what a maintenance removes."""
    found = plan(context, bundles or set(), NOW)
    remove(context, found)
    top = f"{context.data.root}/"
    runs = f"{context.pipeline.name}/{context.pipeline.config_hash}/"
    return [(one.kind, one.path.removeprefix(top).removeprefix(runs)) for one in found]


def test_what_is_old_and_needed_by_nothing_goes(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    for index in (NEWEST, NEWEST - 40, NEWEST - 41):
        written(context, "log", index)
    for index in (NEWEST - 20, NEWEST - 21):
        written(context, "rollouts-0-of-1", index)
    for index in (NEWEST - 60, NEWEST - 61):
        written(context, "report", index)
    assert gone(context) == [
        ("expired", f"log/ds={day_at(NEWEST - 41)}"),
        ("expired", f"report/ds={day_at(NEWEST - 61)}"),
        ("expired", f"rollouts-0-of-1/ds={day_at(NEWEST - 21)}"),
    ]
    assert context.data.days("log") == [day_at(NEWEST - 40), day_at(NEWEST)]
    assert plan(context, set(), NOW) == []


def test_reports_stay_for_ever_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    context = context_of(tmp_path, report_days=None)
    written(context, "log", NEWEST)
    for dataset in REPORTED:
        written(context, dataset, 0)
    assert gone(context) == []


def test_a_version_goes_when_its_manifest_names_another_one(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    partition = written(context, "log", NEWEST - 39, "first", "second")
    written(context, "log", NEWEST)
    ((kind, path),) = gone(context)
    assert (kind, path.rsplit("/", 1)[0]) == ("superseded", f"log/ds={day_at(NEWEST - 39)}")
    assert context.data.get("log", day_at(NEWEST - 39)).bytes("content.txt") == f"log {NEWEST - 39} second".encode()
    assert context.data.get("log", day_at(NEWEST - 39)).content_hash == partition.content_hash


def test_a_version_that_a_run_names_again_meanwhile_is_given_back(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    written(context, "log", NEWEST - 39, "first", "second")
    written(context, "log", NEWEST)
    found = plan(context, set(), NOW)
    with context.data.write("log", day_at(NEWEST - 39)) as writer:
        writer.text("content.txt", f"log {NEWEST - 39} first")
    assert remove(context, found) == 0
    assert context.data.get("log", day_at(NEWEST - 39)).bytes("content.txt") == f"log {NEWEST - 39} first".encode()


def test_leftovers_of_killed_runs_go_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    written(context, "log", NEWEST)
    for name, moment in (("killed", OLD), ("running", NOW)):
        for folder in (Path(context.runs.root) / "_staging" / name, Path(context.runs.root) / "checkpoints" / name):
            folder.mkdir(parents=True)
            (folder / "part").write_text("half")
            for path in (folder, folder / "part"):
                os.utime(path, (moment.timestamp(), moment.timestamp()))
    assert gone(context) == [("leftover", "_staging/killed"), ("leftover", "checkpoints/killed")]
    assert sorted(path.name for path in Path(context.runs.root).glob("*/*")) == ["running", "running"]


def test_other_pipelines_over_the_feed_keep_their_windows(tmp_path: Path) -> None:
    context = context_of(tmp_path, data_days=5)
    written(context, "log", NEWEST)
    for index in range(NEWEST - 80, NEWEST):
        written(context, "log", index)
    wide = context_at(tmp_path, name="wide", train={"window_days": 30}).pipeline
    assert wide.source_id == context.pipeline.source_id
    alone = [one.path for one in plan(context, set(), NOW)]
    beside = [one.path for one in plan(context, set(), NOW, [wide])]
    assert len(alone) == 80 - WINDOW_DAYS
    assert len(beside) == 80 - WINDOW_DAYS - 29


def test_a_damaged_manifest_stops_maintenance(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    written(context, "log", NEWEST)
    partition = written(context, "log", 0)
    (Path(partition.folder).parent / MANIFEST).write_text("{")
    with pytest.raises(LakeError, match="damaged"):
        plan(context, set(), NOW)


def test_an_empty_lake_has_nothing_to_remove(tmp_path: Path) -> None:
    assert plan(context_of(tmp_path), set(), NOW) == []


@dataclass
class Drawn:
    """A place of a drawn lake."""

    dataset: str
    index: int
    versions: int
    fresh: bool
    serves: int | None
    inputs: list[int] = field(default_factory=list)


places = st.builds(
    Drawn,
    dataset=st.sampled_from([*DATA, *RUNS]),
    index=st.integers(0, NEWEST),
    versions=st.integers(1, 2),
    # Most of a lake is old.
    fresh=st.integers(0, 7).map(lambda n: n == 0),
    serves=st.one_of(st.none(), st.none(), st.integers(0, 1)),
    inputs=st.lists(st.integers(0, 30), max_size=3),
)


@contextmanager
def a_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="mfh-maintain-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(places, max_size=30))
def test_whatever_lies_in_the_lake_what_is_needed_stays(drawn: list[Drawn]) -> None:
    with a_home() as home:
        context = context_of(home)
        partitions: list[Partition] = [written(context, "log", NEWEST)]
        fresh: list[Partition] = []
        bundles: set[str] = set()
        seen: set[tuple[str, int]] = {("log", NEWEST)}
        for one in drawn:
            if (one.dataset, one.index) in seen:
                continue
            seen.add((one.dataset, one.index))
            inputs = tuple(partitions[at] for at in one.inputs if at < len(partitions))
            contents = [f"version {n}" for n in range(one.versions)]
            partition = written(context, one.dataset, one.index, *contents, inputs=inputs, fresh=one.fresh)
            partitions.append(partition)
            if one.fresh:
                fresh.append(partition)
            if one.serves is not None and one.dataset == "model_treatment":
                versions = sorted(path for path in Path(partition.folder).parent.iterdir() if path.is_dir())
                bundles.add(str(versions[min(one.serves, len(versions) - 1)]))
        before = {path for path in home.rglob("*") if path.is_file()}
        found = plan(context, bundles, NOW)
        assert {path for path in home.rglob("*") if path.is_file()} == before, "a plan touches nothing"
        remove(context, found)

        # A champion's bundle is whole, also where its day was trained again.
        for folder in bundles:
            assert (Path(folder) / "content.txt").is_file()
        # A running job finds what it wrote, and everything that it was made from.
        waiting, known = list(fresh), {f"{p.manifest.dataset}/{p.manifest.day}": p for p in partitions}
        while waiting:
            partition = waiting.pop()
            assert partition.bytes("content.txt"), partition.folder
            waiting += [known[name] for name in partition.manifest.inputs]
        days = {date.fromisoformat(p.manifest.day) for p in fresh} | {day_at(NEWEST), day_at(NEWEST + 1)}
        for partition in partitions:
            day, dataset = date.fromisoformat(partition.manifest.day), partition.manifest.dataset
            found_now = partition.lake.find(dataset, day)
            # Days whose jobs run find their whole window.
            if dataset in DATA and any(0 <= (one - day).days <= WINDOW_DAYS for one in days):
                assert found_now is not None, (dataset, day)
            # Reports stay as long as the settings say, with what they show.
            if dataset in REPORTED and (day_at(NEWEST) - day).days <= 60:
                assert found_now is not None, (dataset, day)
            # What is still there is whole, and is what it was.
            if found_now is not None:
                assert found_now.content_hash == partition.content_hash
                assert found_now.bytes("content.txt")
        assert plan(context, bundles, NOW) == [], "a second maintenance finds nothing"


@pytest.mark.integration
def test_the_registry_and_the_record_say_what_serves(
    registry_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = registry_context
    served = []
    for index in (1, 2, 3):
        analysed(context, day_at(index), "ship")
        promote(context, day_at(index))
        served.append(context.runs.get("model_treatment", day_at(index)).folder)
    written(context, "log", NEWEST)
    assert bundles_that_serve(context) == set(served)
    # The command lists, and removes only when told to; here everything is old at once.
    monkeypatch.setenv("MFH_HOME", str(context.settings.home))
    retention = {"work_days": 1, "grace_hours": 0, "champions": 1}
    pipelines = context.settings.pipelines_dir
    pipelines.mkdir()
    narrow = context.pipeline.model_validate(context.pipeline.model_dump(mode="json") | {"retention": retention})
    (pipelines / "small.yaml").write_text(narrow.model_dump_json())
    runner = CliRunner()
    listed = runner.invoke(app, ["maintain"])
    assert listed.exit_code == 0, listed.output
    assert "nothing was removed: '--apply' removes it" in listed.output
    assert all(Path(folder).is_dir() for folder in served)
    done = runner.invoke(app, ["maintain", "--apply"])
    assert done.exit_code == 0, done.output
    assert [Path(folder).is_dir() for folder in served] == [False, True, True], "the champion and the one before"
    assert maintain.run(Context(narrow, context.settings), apply=False).removals == []
