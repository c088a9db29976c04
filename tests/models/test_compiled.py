"""A compiled network trains like the one it was made of, and leaves it as it was."""

import shutil
from dataclasses import replace

import pytest

from components.errors import TrainingError
from components.models.trainer import fit
from tests.conftest import give_up
from tests.models.planted import GROUPS, RECIPE, SPEC, TASKS, TRAIN, window

SETTINGS = replace(TRAIN, epochs=1, batch_size=150)


@pytest.mark.integration
def test_a_compiled_training_has_the_losses_of_an_eager_one():
    if shutil.which("g++") is None:
        give_up("torch.compile needs a C++ compiler: apt-get install g++")
    recipe = replace(RECIPE, kind="ple")
    plain, compiled = (
        fit(recipe, replace(SETTINGS, compile=chosen), TASKS, GROUPS, SPEC, window(450)) for chosen in (False, True)
    )
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    assert "heads" not in vars(compiled.model.network)


def test_a_missing_compiler_is_a_named_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(TrainingError, match=r"needs a C\+\+ compiler and none works here"):
        fit(RECIPE, replace(SETTINGS, compile=True), TASKS, GROUPS, SPEC, window(300))
