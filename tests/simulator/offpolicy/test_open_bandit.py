import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import SourceError
from simulator.offpolicy.open_bandit import check_reference

Columns = dict[str, np.ndarray]
RANDOM, BTS = "random log -> policy = item frequency per position in the bts file", "bts log -> uniform policy"


def drawn(seed: int, items: list[int], places: list[int], rounds: int = 400) -> Columns:
    """A log of some items; each has a propensity of its own and clicks that differ by place."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(len(items), 2.0))
    at = rng.choice(len(items), rounds, p=chance)
    position = rng.choice(places, rounds)
    return {
        "item_id": np.array(items)[at],
        "position": position,
        "click": (rng.random(rounds) < 0.2 + 0.1 * (position == places[0])).astype(np.int64),
        "propensity_score": chance[at],
    }


def save(folder: Path, name: str, columns: Columns, affinities: int = 0) -> None:
    more = {f"user-item_affinity_{i}": np.zeros(len(columns["item_id"])) for i in range(affinities)}
    pq.write_table(pa.table(columns | more), folder / name)


def dense(log: Columns, policy: np.ndarray, items: int, switch: float, dros: float) -> dict[str, float]:
    """The definitions over dense arrays: ``policy`` is [rounds, items]."""
    item, r = log["item_id"], log["click"].astype(float)
    q = np.array([r[item == i].mean() if (item == i).any() else 0.0 for i in range(items)])
    w = policy[np.arange(len(item)), item] / log["propensity_score"]
    d, e = policy @ q, r - q[item]
    return {
        "IPS": (w * r).mean(),
        "SNIPS": (w * r).sum() / w.sum(),
        "DM": d.mean(),
        "DR": (d + w * e).mean(),
        "SNDR": (d + w * e / w.mean()).mean(),
        f"SwitchDR, lambda={switch}": (d + w * (w <= switch) * e).mean(),
        f"DRos, lambda={dros}": (d + dros * w / (w**2 + dros) * e).mean(),
        "weight mean": w.mean(),
        "weight max": w.max(),
        "effective sample size": w.sum() ** 2 / (w**2).sum(),
    }


def write_pair(folder: Path, items: int = 7, affinities: int = 7) -> dict[str, Any]:
    """Logs of other items and places than the sample's, in which an item never occurs, and their reference."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [0, 4, 5, 9]
    random, bts = drawn(1, [0, 1, 2, 4, 5], places), drawn(2, [0, 1, 2, 3, 5], places)
    save(folder, "random_women.parquet", random, affinities)
    save(folder, "bts_women.parquet", bts, affinities)
    frequency = np.array(
        [
            [
                ((bts["item_id"] == i) & (bts["position"] == k)).sum() / (bts["position"] == k).sum()
                for i in range(items)
            ]
            for k in random["position"]
        ]
    )
    uniform = np.full((400, items), 1 / items)
    return {
        "library": "a sentence",
        RANDOM: dense(random, frequency, items, 1.5, 8),
        BTS: dense(bts, uniform, items, 2, 0.5),
        "on-policy click rate": {"random": random["click"].mean(), "bts": bts["click"].mean()},
        "items": items,
        "positions": 4,
    }


def checked(folder: Path, content: Any):
    path = folder / "reference.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return check_reference(folder, path)


def test_the_sample_equals_the_library(test_data: Path) -> None:
    folder = test_data / "open_bandit"
    found = check_reference(folder, folder / "reference.json")
    assert found.passed
    assert len(found.comparisons) == 24
    assert found.max_difference is not None
    assert found.max_difference < 1e-12
    assert found.sentence.startswith("all 24 numbers equal the reference within 1e-09")
    assert found.notes == ()


def test_any_pair_of_logs_is_read_by_its_data(tmp_path: Path) -> None:
    found = checked(tmp_path, write_pair(tmp_path))
    assert found.passed, found.sentence
    assert len(found.comparisons) == 24
    assert found.notes == (
        "random_women.parquet never shows 2 of 7 items (3, 6): their value counts as 0",
        "bts_women.parquet never shows 2 of 7 items (4, 6): their value counts as 0",
    )


def test_without_affinities_the_ids_tell_the_items(tmp_path: Path) -> None:
    assert checked(tmp_path, write_pair(tmp_path, items=6, affinities=0)).passed


def test_one_wrong_number_fails_and_is_named(tmp_path: Path) -> None:
    content = write_pair(tmp_path)
    content[BTS]["DR"] *= 1 + 1e-8
    found = checked(tmp_path, content)
    assert not found.passed
    assert found.max_difference == pytest.approx(1e-8, rel=1e-3)
    assert found.sentence.startswith("1 of 24 numbers differ")
    assert f"DR of '{BTS}'" in found.sentence


@pytest.mark.parametrize(
    ("section", "number", "value", "words"),
    [
        (RANDOM, "MRDR", 0.1, "not known here"),
        (RANDOM, "IPS", None, "holds None, not a number"),
        (RANDOM, "IPS", float("nan"), "holds nan, not a number"),
        (RANDOM, "IPS", True, "not a number"),
        ("egreedy log -> uniform policy", "IPS", 0.1, "only a uniform policy or an item frequency"),
        ("random log -> greedy policy", "IPS", 0.1, "only a uniform policy or an item frequency"),
        ("on-policy click rate", "egreedy", 0.1, "not known here"),
        ("dislike rate", "random", 0.1, "not known here"),
    ],
)
def test_what_is_not_known_fails_in_words(tmp_path: Path, section: str, number: str, value: object, words: str) -> None:
    content = write_pair(tmp_path)
    content.setdefault(section, {})[number] = value
    found = checked(tmp_path, content)
    assert not found.passed
    assert words in found.sentence
    assert [one.difference for one in found.comparisons].count(None) == 1


def test_a_number_of_its_own_that_is_not_known_fails(tmp_path: Path) -> None:
    found = checked(tmp_path, write_pair(tmp_path) | {"campaigns": 3})
    assert not found.passed
    assert "campaigns" in found.sentence


@pytest.mark.parametrize(("value", "words"), [(0.0, "0 or below"), (1.5, "above 1"), (np.nan, "unknown in 1 of 400")])
def test_bad_propensities_fail_in_words(tmp_path: Path, value: float, words: str) -> None:
    content = write_pair(tmp_path)
    log = drawn(2, [0, 1, 2, 3, 5], [0, 4, 5, 9])
    log["propensity_score"][0] = value
    save(tmp_path, "bts_women.parquet", log, 7)
    found = checked(tmp_path, content)
    assert not found.passed
    for number in ("IPS", "weight mean"):
        one = next(one for one in found.comparisons if (one.section, one.number) == (BTS, number))
        assert one.ours is None
        assert words in (one.reason or "")


def test_a_place_that_the_policy_does_not_know_fails_in_words(tmp_path: Path) -> None:
    content = write_pair(tmp_path)
    save(tmp_path, "bts_women.parquet", drawn(2, [0, 1, 2, 3, 5], [0, 4]), 7)
    found = checked(tmp_path, content)
    ips = next(one for one in found.comparisons if (one.section, one.number) == (RANDOM, "IPS"))
    assert "no distribution" in (ips.reason or "")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "no JSON"), ("[1]", "must be a JSON object"), ("{}", "no number to compare"), ('{"a": "b"}', "no number")],
)
def test_a_broken_reference_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    write_pair(tmp_path)
    with pytest.raises(SourceError, match=words):
        checked(tmp_path, content)


def test_a_missing_reference_or_folder_is_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(SourceError, match="can not be read"):
        check_reference(tmp_path, tmp_path / "none.json")
    with pytest.raises(SourceError, match="is not a folder"):
        check_reference(tmp_path / "none", tmp_path / "none.json")


@pytest.mark.parametrize("log", ["random", "bts"])
def test_logs_that_are_not_one_pair_are_an_error(tmp_path: Path, log: str) -> None:
    content = write_pair(tmp_path)
    path = tmp_path / f"{log}_women.parquet"
    other = tmp_path / f"{log}_men.parquet"
    other.write_bytes(path.read_bytes())
    with pytest.raises(SourceError, match=rf"one {log}_\*\.parquet, found {log}_men\.parquet, {log}_women\.parquet"):
        checked(tmp_path, content)
    other.unlink()
    path.unlink()
    with pytest.raises(SourceError, match="found none"):
        checked(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"click": None}, "lacks the columns click"),
        ({"item_id": np.full(400, -1)}, "item_id must be whole numbers from 0"),
        ({"position": np.full(400, 0.5)}, "position must be whole"),
        ({"click": np.full(400, np.nan)}, "click is missing"),
        ({"click": np.full(400, "no")}, "click is string, not a number"),
    ],
)
def test_a_log_of_other_columns_is_an_error(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = write_pair(tmp_path)
    columns = drawn(1, [0, 1], [1]) | change
    save(tmp_path, "random_women.parquet", {name: value for name, value in columns.items() if value is not None})
    with pytest.raises(SourceError, match=words):
        checked(tmp_path, content)


def test_a_damaged_or_empty_log_is_an_error(tmp_path: Path) -> None:
    content = write_pair(tmp_path)
    path = tmp_path / "bts_women.parquet"
    save(tmp_path, path.name, {name: column[:0] for name, column in drawn(1, [0], [1]).items()})
    with pytest.raises(SourceError, match="holds no round"):
        checked(tmp_path, content)
    path.write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match="no readable Parquet"):
        checked(tmp_path, content)
