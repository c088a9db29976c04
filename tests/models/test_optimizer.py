import sys

import torch
from torch import nn

from components.models.optimizer import AdamW
from components.models.trainer import fit
from tests.models.planted import GROUPS, RECIPE, SPEC, TASKS, TRAIN, window


def test_training_does_not_load_the_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it now raises
    fit(RECIPE, TRAIN.model_copy(update={"epochs": 1}), TASKS, GROUPS, SPEC, window(300))


def test_steps_equal_torchs_adamw():
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(7))]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    ours = AdamW([([mine[0]], 0.1), ([mine[1]], 0.0)], learning_rate=0.05)
    reference = torch.optim.AdamW(
        [{"params": [theirs[0]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}], lr=0.05
    )
    for step in range(20):
        for optimizer, (a, b) in ((ours, mine), (reference, theirs)):
            optimizer.zero_grad()
            loss = ((a - 1.0) ** 3).sum()
            if step % 3:  # the second parameter goes without a gradient now and then
                loss = loss + (b**4).sum()
            loss.backward()
            optimizer.step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)
