import hashlib
import json

import numpy as np
import pytest

from components.errors import BundleError
from components.models import bundle
from tests.models import planted

EXTRA = {"low_activity_below": 12.5, "window": ["2026-01-01", "2026-01-07"]}


@pytest.fixture(scope="module")
def files(fitted):
    return bundle.save(fitted, EXTRA)


def resealed(files, name, content):
    """The files with one replaced and the recorded hash made to fit."""
    index = json.loads(files[bundle.BUNDLE])
    index["sha256"][name] = hashlib.sha256(content).hexdigest()
    return {**files, name: content, bundle.BUNDLE: json.dumps(index).encode()}


def test_a_bundle_restores_the_same_bits(fitted, files):
    table = planted.window(700, seed=3)
    restored = bundle.load(files)
    np.testing.assert_array_equal(restored.predict(table), fitted.predict(table))
    for name in ("recipe", "train", "tasks", "group_names", "spec", "history", "warnings", "rows", "parameters"):
        assert getattr(restored, name) == getattr(fitted, name)
    assert restored.extra == EXTRA
    assert restored.seconds is None


def test_bytes_are_the_same_each_time(fitted, files):
    assert bundle.save(fitted, EXTRA) == files
    assert bundle.save(bundle.load(files), EXTRA) == files
    assert sorted(files) == sorted(bundle.FILES)


def test_the_card_says_what_the_model_is(files):
    card = files[bundle.CARD].decode()
    assert "| finish | cross-entropy on a logit | 1 |" in card
    assert "low_activity_below: 12.5" in card
    assert "- column 'constant' does not vary in the training window: it is read as 0" in card
    assert "| tower/0/2 | tower |" in card or "| tower/0 | tower |" in card
    assert "| all | | | | | |" in card


@pytest.mark.parametrize("name", bundle.FILES)
def test_missing_truncated_and_changed_files_are_named(files, name):
    with pytest.raises(BundleError, match=rf"lacks {name}"):
        bundle.load({k: v for k, v in files.items() if k != name})
    with pytest.raises(BundleError, match=name):
        bundle.load({**files, name: files[name][:-7]})
    if name != bundle.BUNDLE:
        changed = files[name][:-1] + bytes([files[name][-1] ^ 1])
        with pytest.raises(BundleError, match=f"{name} is truncated or changed"):
            bundle.load({**files, name: changed})


def test_weights_of_another_recipe_are_refused(files):
    index = json.loads(files[bundle.BUNDLE])
    index["recipe"]["level0_width"] = 48
    with pytest.raises(BundleError, match=r"does not fit the recipe: network\.\S+ has shape"):
        bundle.load({**files, bundle.BUNDLE: json.dumps(index).encode()})


def test_weights_that_are_no_safetensors_are_refused(files):
    with pytest.raises(BundleError, match=r"weights\.safetensors can not be read"):
        bundle.load(resealed(files, bundle.WEIGHTS, files[bundle.WEIGHTS][:100]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"recipe": {"kind": "mfh", "depth": 3}}, "bundle.json can not be read"),
        ({"spec": {"ids": ["a"]}}, "bundle.json can not be read"),
        ({"tasks": None}, "bundle.json can not be read"),
    ],
)
def test_a_damaged_index_is_refused(files, change, message):
    index = {**json.loads(files[bundle.BUNDLE]), **change}
    with pytest.raises(BundleError, match=message):
        bundle.load({**files, bundle.BUNDLE: json.dumps(index).encode()})


def test_vocabularies_of_other_columns_are_refused(files):
    vocab = json.loads(files[bundle.VOCAB])
    vocab["fields"] = vocab["fields"][:-1]
    with pytest.raises(BundleError, match="other columns"):
        bundle.load(resealed(files, bundle.VOCAB, json.dumps(vocab).encode()))
