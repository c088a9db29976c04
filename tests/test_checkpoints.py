"""Checkpoints in a lake, on a local folder and on an S3 endpoint by the same tests."""

from pathlib import Path

import pytest
import torch

from components.checkpoints import LakeCheckpoints
from components.errors import LakeError
from components.lake import Lake
from tests.test_lake import lake, s3_endpoint, s3_settings, settings

# Fixtures, found by name.
__all__ = ["lake", "s3_endpoint", "s3_settings", "settings"]

NAME = "model_treatment/ds=2022-04-28"


def at(lake: Lake, key: str = "0123456789abcdef0123") -> LakeCheckpoints:
    return LakeCheckpoints(lake, NAME, key)


def state(value: float) -> dict[str, torch.Tensor]:
    return {
        "model/w": torch.full((2, 3), value),
        "optimizer/steps": torch.tensor(value),
        "sums/loss": torch.full((2,), value, dtype=torch.float64),
    }


def names(lake: Lake) -> list[str]:
    return sorted(str(path).rsplit("/", 1)[-1] for path in lake.fs.find(lake.root))


def test_the_newest_comes_back_to_the_bit(lake: Lake) -> None:
    kept = at(lake)
    assert kept.latest() is None
    for step in (100, 20):
        kept.save(step, state(step / 3), {"step": step, "score": 0.1})
    tensors, facts = kept.latest() or ({}, {})
    assert facts == {"step": 100, "score": 0.1}
    wanted = state(100 / 3)
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_last_two_are_kept(lake: Lake) -> None:
    kept = at(lake)
    for step in (1, 2, 3, 4):
        kept.save(step, state(step), {"step": step})
    assert names(lake) == [
        "step-00000003.json",
        "step-00000003.safetensors",
        "step-00000004.json",
        "step-00000004.safetensors",
    ]


def test_a_damaged_one_is_passed_over(lake: Lake) -> None:
    kept = at(lake)
    for step in (1, 2):
        kept.save(step, state(step), {"step": step})
    place = next(str(path) for path in lake.fs.find(lake.root) if str(path).endswith("00000002.safetensors"))
    lake.fs.pipe_file(place, lake.fs.cat_file(place)[:-4])
    assert (kept.latest() or ({}, {}))[1] == {"step": 1}
    lake.fs.rm_file(place)
    assert (kept.latest() or ({}, {}))[1] == {"step": 1}


def test_tensors_without_facts_do_not_exist(lake: Lake) -> None:
    kept = at(lake)
    for step in (1, 2):
        kept.save(step, state(step), {"step": step})
    lake.fs.rm_file(next(str(path) for path in lake.fs.find(lake.root) if str(path).endswith("00000002.json")))
    assert (kept.latest() or ({}, {}))[1] == {"step": 1}


def test_other_rows_have_others_and_the_end_removes_all(lake: Lake) -> None:
    at(lake).save(1, state(1), {})
    other = at(lake, "f" * 64)
    assert other.latest() is None
    other.save(2, state(2), {})
    LakeCheckpoints(lake, "model_baseline/ds=2022-04-28", "f" * 64).save(3, state(3), {})
    other.clear()
    assert at(lake).latest() is None
    assert names(lake) == ["step-00000003.json", "step-00000003.safetensors"]
    other.clear()


def test_no_permission_is_a_lake_error_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = at(Lake(str(tmp_path)))
    kept.save(1, state(1), {"step": 1})

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("components.checkpoints.safetensors.save_file", full)
    with pytest.raises(LakeError, match=r"checkpoint of step 2.*No space left.*mfh doctor"):
        kept.save(2, state(2), {"step": 2})
    assert names(Lake(str(tmp_path))) == ["step-00000001.json", "step-00000001.safetensors"]
    assert (kept.latest() or ({}, {}))[1] == {"step": 1}
