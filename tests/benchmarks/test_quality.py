"""The comparison of models: what is measured, claimed, counted and printed, on predictions of known quality."""

import io
import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from benchmarks import quality, quality_models
from benchmarks.quality_data import Days, Examples, load
from benchmarks.quality_models import Outcome, fit, require_models
from benchmarks.quality_table import markdown
from components.config import Pipeline, parse_pipeline
from components.errors import ConfigError, WindowError
from components.models import metrics
from tests.models import planted

ROWS = 900


def pipeline(**changes: object) -> Pipeline:
    data = {
        "name": "planted",
        "feed": {"kind": "world", "first_day": "2026-01-01", "last_day": "2026-01-06", "users": 150, "videos": 60},
        "tasks": [{"name": "completion"}, {"name": "finish"}, {"name": "like"}],
        "simulator": {"fusion": {"like": 1.0}},
        "sizes": {
            "kind": "mfh",
            "level0_width": 16,
            "level1": {"kind": "ple", "widths": [8, 8]},
            "deeper": {"kind": "cgc", "widths": [8], "experts": 1, "shared": 1},
            "tower_widths": [8],
            "small_tower_widths": [8],
        },
        "train": {"epochs": 3, "batch_size": 128, "learning_rate": 5e-3, "id_embedding": 6, "window_days": 2},
    }
    return parse_pipeline(data | changes, where="test")


def examples(test: bool = True) -> Examples:
    days = Days.parse("2026-01-01:2026-01-02", "2026-01-03", "2026-01-04" if test else None)
    parts = [planted.window(ROWS, seed) for seed in range(3)]
    return Examples(pipeline(), planted.SPEC, days, 1.0, parts[0], parts[1], parts[2] if test else None)


def guesses(data: Examples, noise: float, seed: int) -> np.ndarray:
    """Labels plus noise as probabilities: the more noise, the worse in every metric."""
    rng = np.random.default_rng(seed)
    labels = np.stack([data.judged[task.name].to_numpy().astype(float) for task in data.pipeline.tasks], axis=1)
    return (0.5 + 0.3 * (labels - 0.5) + noise * rng.uniform(-0.3, 0.3, labels.shape)).astype(np.float32)


NOISE = {"mfh": 0.9, "ple": 1.5, "flat": 0.9}


def fake_fit(name: str, seed: int, data: Examples) -> Outcome:
    scores = guesses(data, NOISE[name], 10 * seed + len(name))
    return Outcome(name, seed, scores, None if data.test is None else scores, 0.1)


def run(monkeypatch: pytest.MonkeyPatch, log: Path, test: str | None = "2026-01-04") -> quality.Record:
    monkeypatch.setattr(quality, "load", lambda *_: examples(test is not None))
    monkeypatch.setattr(quality, "fit", fake_fit)
    days = ("2026-01-01:2026-01-02", "2026-01-03", test)
    return quality.run("world", *days, ("mfh", "ple", "flat"), seeds=2, resamples=200, evaluations=log)


def test_rows_hold_every_model_seed_task_group_and_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run(monkeypatch, tmp_path / "log.jsonl")
    values = [row for row in result.rows if "seed" in row]
    assert len(values) == 3 * 2 * 4 * (1 + 3 + 3)
    data = examples()
    new = data.judged["group"].to_numpy() == 0
    row = next(
        r
        for r in values
        if (r["model"], r["seed"], r["task"], r["group"], r["metric"]) == ("ple", 2, "like", "new", "auc")
    )
    label = data.judged["like"].to_numpy()[new]
    wanted = metrics.auc(label, fake_fit("ple", 2, data).judged[new, 2])
    assert (row["value"], row["rows"], row["positives"]) == (wanted.value, int(new.sum()), int(label.sum()))
    assert {key: type(row[key]) for key in ("model", "value", "positives", "rows")} == {
        "model": str,
        "value": float,
        "positives": int,
        "rows": int,
    }


def test_claims_hold_only_where_the_whole_interval_is_on_our_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    claims = {claim.name: claim for claim in run(monkeypatch, tmp_path / "log.jsonl").claims}
    assert len(claims) == 3 * 4 * 2
    better, worse = claims["quality.like.all.mfh_minus_ple"], claims["quality.completion.new.mfh_minus_ple"]
    assert better.unit == "AUC"
    assert better.low <= better.value <= better.high
    assert better.low > 0
    assert better.holds is True
    # Squared error: less is better.
    assert worse.unit == "MSE"
    assert worse.high < 0
    assert worse.holds is True
    equal = claims["quality.finish.all.mfh_minus_flat"]
    assert equal.low < 0 < equal.high
    assert equal.holds is False


def test_differences_are_of_means_over_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run(monkeypatch, tmp_path / "log.jsonl")
    for metric in ("auc", "gauc", "logloss"):
        at = {"task": "finish", "group": "all", "metric": metric}
        found = next(r for r in result.rows if r | at == r and r["model"] == "mfh_minus_ple")
        means = [
            np.mean([r["value"] for r in result.rows if r | at == r and r["model"] == name]) for name in ("mfh", "ple")
        ]
        assert found["value"] == pytest.approx(means[0] - means[1], abs=1e-12)
        assert found["resamples"] == 200


def test_every_evaluation_on_test_days_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "results" / "log.jsonl"
    assert [run(monkeypatch, log).config["evaluation"] for _ in range(2)] == [1, 2]
    assert "evaluation" not in run(monkeypatch, log, test=None).config
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["evaluation"] for entry in entries] == [1, 2]
    assert entries[0]["test"] == "2026-01-04:2026-01-04"
    assert {"when", "commit", "train_settings", "models", "seeds"} <= set(entries[0])


def test_the_validation_days_are_judged_without_test_days(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run(monkeypatch, tmp_path / "log.jsonl", test=None)
    assert "validation days" in printed(result)
    assert not (tmp_path / "log.jsonl").exists()


def printed(result: quality.Record) -> str:
    out = io.StringIO()
    quality.show(result, Console(file=out, width=200))
    return out.getvalue()


def test_the_table_shows_means_deviations_and_differences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = printed(run(monkeypatch, tmp_path / "log.jsonl"))
    for expected in ("completion: mse on the test days", "like: gauc", "mfh minus ple", "mfh minus flat", "±", "[+"):
        assert expected in text


def test_the_kept_table_marks_the_best_and_what_the_intervals_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = markdown(run(monkeypatch, tmp_path / "log.jsonl"))
    assert "Evaluation 1 on these test days." in text
    assert "## completion: squared error, less is better" in text
    assert "logloss" not in text
    like = text.split("## like: AUC")[1].split("##")[0].splitlines()
    best = next(line for line in like if line.startswith("| mfh |") or line.startswith("| flat |"))
    assert "**" in best
    against_ple = next(line for line in like if line.startswith("| mfh − ple |"))
    assert against_ple.count("| **+") == 4
    assert "**" not in next(line for line in like if line.startswith("| mfh − flat |"))


def test_a_group_without_rows_is_shown_as_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = examples()
    nobody_new = data.test.filter(pa.array(data.test["group"].to_numpy() > 0))
    monkeypatch.setattr(quality, "load", lambda *_: Examples(**{**vars(data), "test": nobody_new}))
    monkeypatch.setattr(quality, "fit", fake_fit)
    days = ("2026-01-01:2026-01-02", "2026-01-03", "2026-01-04")
    result = quality.run("world", *days, ("mfh", "ple"), seeds=1, resamples=50, evaluations=tmp_path / "log.jsonl")
    row = next(r for r in result.rows if "seed" in r and r["group"] == "new")
    assert row["value"] is None
    assert row["reason"] == "no row has a label"
    assert not [claim for claim in result.claims if ".new." in claim.name]
    assert "-" in printed(result)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (("2026-01-01:2026-01-03", "2026-01-03", None), "2026-01-03 is not after 2026-01-03"),
        (("2026-01-01", "2026-01-02:2026-01-04", "2026-01-04:2026-01-05"), "must follow"),
        (("2026-01-02:2026-01-01", "2026-01-03", None), "second day is before the first"),
        (("yesterday", "2026-01-03", None), "ISO dates"),
    ],
)
def test_ranges_that_would_look_ahead_are_refused(ranges: tuple[str, str, str | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Days.parse(*ranges)


def test_ranges_are_inclusive() -> None:
    days = Days.parse("2026-01-01:2026-01-02", "2026-01-03", "2026-01-04:2026-01-06")
    assert days.span == (date(2026, 1, 1), date(2026, 1, 6))
    assert Days.parse("2026-01-01:2026-01-02", "2026-01-03", None).span == (date(2026, 1, 1), date(2026, 1, 3))


@pytest.mark.parametrize("names", [("mfh", "pel"), (), ("mfh", "mfh")])
def test_wrong_models_are_refused_before_anything_trains(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"known are|once"):
        require_models(names, pipeline())


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lightgbm.*\[bench\]"):
        require_models(("lightgbm",), pipeline())


@pytest.mark.parametrize("name", ["mfh", "mtnas", "lightgbm", "rechub_mmoe", "rechub_ple"])
def test_every_kind_of_model_learns_the_planted_signal(name: str) -> None:
    data = Examples(**{**vars(examples()), "train": planted.window(3_000, 9)})
    outcome = fit(name, 1, data)
    for part, scores in ((data.valid, outcome.valid), (data.test, outcome.test)):
        assert scores.shape == (ROWS, 3)
        assert np.isfinite(scores).all()
        assert metrics.auc(part["finish"].to_numpy(), scores[:, 1]).value > 0.6
    assert outcome.facts


@pytest.mark.parametrize("name", ["lightgbm", "rechub_ple"])
def test_a_seed_gives_the_same_predictions_again(name: str) -> None:
    data = examples()
    first, again, other = (fit(name, seed, data).valid for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_workers_give_what_one_process_gives() -> None:
    data = examples()
    alone = quality._fit_all(data, ("ple",), 2, 1, lambda *_: None)
    beside = quality._fit_all(data, ("ple",), 2, 2, lambda *_: None)
    for one, two in zip(alone, beside, strict=True):
        assert (one.model, one.seed) == (two.model, two.seed)
        assert np.array_equal(one.valid, two.valid)


def test_mean_labels_leave_a_rows_own_fold_out() -> None:
    from benchmarks.quality_lightgbm import STRENGTH, _mean_labels

    code, fold = np.array([1, 1, 1, 2, 0]), np.array([0, 1, 2, 0, 0])
    label = np.array([1.0, 0.0, np.nan, 1.0, 1.0])
    known, prior = [(code, 3)], STRENGTH * 0.75
    inside = _mean_labels(known, known, label, fold)[:, 0]
    # Code 1 has labels 1 and 0 in folds 0 and 1, code 2 one in its own fold, code 0 is an unknown id.
    wanted = [prior / (STRENGTH + 1), (1 + prior) / (STRENGTH + 1), (1 + prior) / (STRENGTH + 2), 0.75, 0.75]
    assert inside == pytest.approx(wanted)
    later = _mean_labels(known, [(np.array([1, 2, 0]), 3)], label, None)[:, 0]
    assert later == pytest.approx([(1 + prior) / (STRENGTH + 2), (1 + prior) / (STRENGTH + 1), 0.75])


@pytest.fixture
def world(tmp_path: Path) -> Path:
    import yaml

    file = tmp_path / "world.yaml"
    file.write_text(yaml.safe_dump(pipeline().model_dump(mode="json")), encoding="utf-8")
    return file


def test_examples_of_any_days_are_those_of_the_pipeline(world: Path, tmp_path: Path) -> None:
    days = Days.parse("2026-01-02:2026-01-03", "2026-01-04", "2026-01-05")
    seen: list[str] = []
    data = load(str(world), days, tmp_path / "cache", lambda done, total, what: seen.append(what))
    assert "point-in-time join 2026-01-02" in seen
    for part in (data.train, data.valid, data.test):
        assert part.num_rows > 100
        assert {*data.spec.columns, "completion", "finish", "like", "group"} <= set(part.column_names)
    # Features of the first training day come from the day before it, which is no training day.
    assert data.train["user_impressions_1d"].to_numpy().max() > 0
    seen.clear()
    again = load(str(world), days, tmp_path / "cache", lambda done, total, what: seen.append(what))
    assert again.train.equals(data.train)
    assert again.threshold == data.threshold
    assert not [what for what in seen if "join" in what]


def test_days_that_the_source_lacks_are_refused(world: Path) -> None:
    with pytest.raises(WindowError, match="2026-01-01 to 2026-01-06"):
        load(str(world), Days.parse("2026-01-04", "2026-01-05", "2026-01-08"), None, lambda *_: None)


def test_outside_models_are_known_by_name() -> None:
    assert set(quality.MODELS) <= {*quality_models.MODEL_KINDS, *quality_models.OUTSIDE}
