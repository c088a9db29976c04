"""Fixed diagnostics of an MFH treatment: made up, describing no run."""

import math
from collections.abc import Iterator
from typing import Literal

from simulator.report.diagnostics import CurvePoint, DiagnosedTask, Diagnostics, Gain, GateWeight, Overfitting
from simulator.result import Segment

TASKS = ("completion", "finish", "like")
SEGMENTS: tuple[Segment, ...] = ("all", "new", "low", "high")
GROUPS: tuple[Segment, ...] = ("new", "low", "high")
EPOCHS = 5
NO_RATIO = "the model's training loss is 0.61 % above flat's"
NO_AUC = "one class is missing: 0 positives of 211 rows"


def _gains() -> Iterator[Gain]:
    metrics: dict[str, tuple[Literal["auc", "gauc", "mse"], ...]] = {"completion": ("mse",)}
    for at, task in enumerate(TASKS):
        for metric in metrics.get(task, ("auc", "gauc")):
            for place, segment in enumerate(SEGMENTS):
                single = 0.0741 if metric == "mse" else 0.7312 - 0.01 * place
                gain = 0.0011 - 0.0007 * place + 0.0003 * at
                yield Gain(
                    task=task,
                    group=segment,
                    metric=metric,
                    single=single,
                    model=single - gain if metric == "mse" else single + gain,
                    gain=gain,
                    relative=gain / single,
                    rows=184_230 - 20_011 * place,
                    positives=41_877 - 4_003 * place,
                )


def _without_value(gain: Gain) -> Gain:
    nothing = {"single": None, "model": None, "gain": None, "relative": None}
    return gain.model_copy(update={**nothing, "rows": 211, "positives": 0, "reason": NO_AUC})


def _curves() -> Iterator[CurvePoint]:
    """Flat overfits new users: its held-out loss turns up after the second pass."""
    models: tuple[Literal["treatment", "flat"], ...] = ("treatment", "flat")
    for model in models:
        for epoch in range(1, EPOCHS + 1):
            for at, task in enumerate(TASKS):
                for place, segment in enumerate(SEGMENTS):
                    better = 0.004 if model == "treatment" else 0.0
                    turn = (0.012 if model == "flat" else 0.004) if segment == "new" else 0.001
                    train = 0.45 - 0.1 * at + 0.2 * math.exp(-0.6 * epoch) - better
                    test = 0.47 - 0.1 * at + 0.15 * math.exp(-1.1 * epoch) + turn * max(epoch - 2, 0) - better
                    yield CurvePoint(
                        model=model,
                        epoch=float(epoch),
                        step=120 * epoch,
                        task=task,
                        group=segment,
                        train_loss=train + 0.01 * place,
                        train_entries=9_000,
                        valid_loss=test + 0.01 * place,
                        valid_entries=1_500,
                    )


def _overfitting() -> Iterator[Overfitting]:
    moments: tuple[Literal["best", "last"], ...] = ("best", "last")
    for task in TASKS:
        for place, segment in enumerate(SEGMENTS):
            for at in moments:
                train, test = 0.0084, 0.021 - 0.006 * place
                yield Overfitting(
                    task=task,
                    group=segment,
                    at=at,
                    model_epoch=3.0 if at == "best" else 5.0,
                    flat_epoch=2.0 if at == "best" else 5.0,
                    model_train=0.4916,
                    model_test=0.49,
                    flat_train=0.4958,
                    flat_test=0.5,
                    model_rise=0.0 if at == "best" else 0.0123,
                    flat_rise=0.0 if at == "best" else 0.0345,
                    train_improvement=train,
                    test_improvement=test,
                    ratio=test / train,
                )


def _gates() -> Iterator[GateWeight]:
    """Both trees of MFH, as ``components.models.gates`` names them."""
    four, two = ("own 1", "own 2", "shared 1", "shared 2"), ("own 1", "shared 1")
    for place, group in enumerate(GROUPS):
        rows = 40_000 * (place + 1)
        for at, task in enumerate(TASKS):
            for layer in (1, 2):
                yield from _gate("A", 0, 1, layer, task, task, group, four, place + at + layer, rows)
            yield from _gate(f"A/{at}/G", 0, 2, 1, group, task, group, two, place + at, rows)
            yield from _gate(f"G/{place}/A", 1, 2, 1, task, task, group, two, place - at, rows)
        for layer in (1, 2):
            yield from _gate("G", 1, 1, layer, group, None, group, four, place + layer, rows)
        yield from _gate("G", 1, 1, 1, "shared", None, group, ("new 1", "low 1", "high 1", "shared 1"), place, rows)


def _gate(
    block: str,
    tree: int,
    level: int,
    layer: int,
    branch: str,
    task: str | None,
    group: Segment,
    experts: tuple[str, ...],
    seed: int,
    rows: int,
) -> Iterator[GateWeight]:
    """A softmax gate with some preference."""
    powers = [math.exp(math.sin(2.3 * seed + 1.7 * number)) for number in range(len(experts))]
    for expert, power in zip(experts, powers, strict=True):
        yield GateWeight(
            block=block,
            tree=tree,
            level=level,
            layer=layer,
            branch=branch,
            task=task,
            group=group,
            expert=expert,
            kind="softmax",
            weight=power / sum(powers),
            rows=rows,
        )


def diagnostics() -> Diagnostics:
    """The record; every call builds an equal one."""
    gains = [_without_value(one) if (one.task, one.group) == ("like", "new") else one for one in _gains()]
    overfitting = [
        one.model_copy(update={"ratio": None, "train_improvement": -0.0061, "reason": NO_RATIO})
        if (one.task, one.group) == ("finish", "high")
        else one
        for one in _overfitting()
    ]
    return Diagnostics(
        day="2026-03-12",
        holdout_day="2026-03-11",
        train_days=("2026-03-04", "2026-03-10"),
        treatment="mfh",
        kind="mfh",
        bundle="models/mfh/2026-03-12/4f1d90ac77be",
        bundle_epochs=2.0,
        epochs=EPOCHS,
        tasks=tuple(DiagnosedTask(name=task, loss="bce" if at else "mse") for at, task in enumerate(TASKS)),
        gains=tuple(gains),
        curves=tuple(_curves()),
        overfitting=tuple(overfitting),
        gates=tuple(_gates()),
    )
