"""The running mean of the weights: what is evaluated and kept, while training goes on from the weights themselves."""

from dataclasses import replace

import pytest
import torch

from components.models import updates
from components.models.trainer import fit
from tests.models.planted import GROUPS, RECIPE, SPEC, TASKS, TRAIN, window

SETTINGS = replace(TRAIN, epochs=1, batch_size=200)


def followed(monkeypatch, settings):
    """Weights after every step of a training, and what came out of it."""
    after = []
    one_step = updates.one_step

    def watch(setup, state, *rest):
        found = one_step(setup, state, *rest)
        after.append([p.detach().clone() for p in state.model.parameters()])
        return found

    monkeypatch.setattr("components.models.trainer.one_step", watch)
    return after, fit(RECIPE, settings, TASKS, GROUPS, SPEC, window(1_000), window(300, seed=1))


def mean_of(after, decay):
    mean = after[0]
    for step, weights in enumerate(after[1:], start=2):
        kept = min(decay, (1 + step) / (10 + step))
        mean = [kept * m + (1 - kept) * w for m, w in zip(mean, weights, strict=True)]
    return mean


def test_the_result_is_the_mean_of_the_weights_after_every_step(monkeypatch):
    after, fitted = followed(monkeypatch, replace(SETTINGS, averaging=0.3))
    assert len(after) == 5
    for ours, wanted in zip(fitted.model.parameters(), mean_of(after, 0.3), strict=True):
        torch.testing.assert_close(ours.detach(), wanted)


def test_steps_are_those_of_a_training_without_a_mean(monkeypatch):
    with_mean, averaged = followed(monkeypatch, replace(SETTINGS, averaging=0.9))
    without, plain = followed(monkeypatch, SETTINGS)
    assert all(
        torch.equal(a, b) for one, two in zip(with_mean, without, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert not torch.equal(next(averaged.model.parameters()), next(plain.model.parameters()))


def test_validation_losses_and_the_best_evaluation_are_of_the_mean():
    held = window(300, seed=1)
    for patience in (0, 2):
        settings = replace(SETTINGS, averaging=0.8, epochs=2, patience=patience, evaluations=1)
        fitted = fit(RECIPE, settings, TASKS, GROUPS, SPEC, window(1_000), held)
        (loss,) = [
            one.valid_loss
            for one in fitted.history
            if one.step == fitted.step and one.task == "completion" and one.group is None
        ]
        predicted = fitted.predict(held)[:, 0]
        label = held["completion"].to_numpy()
        kept = (predicted > 0) & (predicted < 2)  # serving clips
        assert kept.mean() > 0.9
        assert loss == pytest.approx(((predicted - label) ** 2).mean(), rel=0.05)
