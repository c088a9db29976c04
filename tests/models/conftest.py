from dataclasses import replace

import pytest
import torch

from components.models.trainer import fit
from tests.models import planted


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Before any other fixture: what they train must have the bits that the tests compare with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=["mfh", "ple"])
def fitted(request):
    recipe = replace(planted.RECIPE, kind=request.param)
    valid = planted.window(1_000, seed=0).slice(0, 500)
    return fit(recipe, planted.TRAIN, planted.TASKS, planted.GROUPS, planted.SPEC, planted.window(), valid)
