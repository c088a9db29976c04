"""How fast training is: against torch-rechub end to end, the plain graph, and the machine's own matrix products.

Runs with torch, numpy and pyarrow alone on a bare GPU machine (``python -m benchmarks.train --json OUT``); torch-rechub
is measured where it is installed. Both sides of a ratio alternate in one run, on the same threads and precision.
"""

import argparse
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims import Claim, Record, record
from benchmarks.train_products import peak_products, switcher_pass
from benchmarks.train_sides import Job, Measured, alternate, epoch, our_step, plain_step, ratio

Notify = Callable[[int, int, str], None]
Rows = list[dict[str, Any]]

MODELS = ("mfh", "ple", "mmoe")
BATCHES = (512, 4_096, 65_536)
HEADLINE_BATCH = 4_096
GPU_BATCH = 512
LARGE_TABLE = 1_000_000
RECHUB = {"ple": 2.0, "mmoe": 1.5}


def epoch_rows(batch: int) -> int:
    """Rows of an end-to-end epoch: enough batches to drown what happens once, and at least two."""
    return max(20_480, min(10 * batch, 40_960), 2 * batch)


def run(
    batches: tuple[int, ...] = BATCHES,
    repeats: int = 5,
    threads: int = 2,
    notify: Notify = lambda done, total, what: None,
) -> Record:
    """Measure.

    Args:
        batches: Rows of a step.
        repeats: Counted rounds of everything.
        threads: Of torch, on both sides.
        notify: Called with (done, total, what).

    Returns:
        Claims, and rows per model, device, batch and precision.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    claims: list[Claim] = []
    rows: Rows = []
    parts: list[tuple[str, Callable[[], tuple[list[Claim], Rows]]]] = [
        ("matrix products", partial(_products, repeats)),
        *((f"steps of {batch} rows", partial(_steps, batch, repeats)) for batch in batches),
        ("groups and behaviours", partial(_growth, repeats)),
        ("large tables", partial(_tables, repeats)),
    ]
    if find_spec("torch_rechub") is not None:
        parts += [
            (f"{kind} end to end, {batch} rows", partial(_rechub, kind, batch, repeats, threads))
            for batch in batches
            for kind in RECHUB
        ]
    try:
        for done, (what, measure) in enumerate(parts):
            notify(done, len(parts), what)
            found, more = measure()
            claims += found
            rows += more
    finally:
        torch.set_num_threads(before)
    notify(len(parts), len(parts), "measured")
    config = {"batches": list(batches), "repeats": repeats, "threads": threads, "gpu": _gpu()}
    return record(config, claims, rows)


def _products(repeats: int) -> tuple[list[Claim], Rows]:
    """The switchers' share of the machine's speed, and that speed."""
    work, needed = switcher_pass(HEADLINE_BATCH, 3, 3)
    peaks = peak_products()
    sides = {"switchers": work} | {name: product for name, (product, _) in peaks.items()}
    seconds = alternate(sides, repeats)
    speeds = {name: [peaks[name][1] / second / 1e9 for second in seconds[name]] for name in peaks}
    reached = [needed / second / 1e9 for second in seconds["switchers"]]
    # Round by round against the fastest shape of the same round.
    shares = [speed / max(speeds[name][at] for name in peaks) for at, speed in enumerate(reached)]
    rows: Rows = [
        {"what": f"product {name}", "device": "cpu", "gflops": statistics.median(found)}
        for name, found in speeds.items()
    ]
    rows.append({"what": "switchers of mfh", "device": "cpu", "gflops": statistics.median(reached)})
    how = f"all switchers, {HEADLINE_BATCH} rows, forward and backward, operations needed against the SGEMM peak"
    share = statistics.median(shares)
    claim = Claim("train.sgemm_share", share, "share", min(shares), max(shares), ">= 0.70", share >= 0.70, how)
    return [claim], rows


def _steps(batch: int, repeats: int) -> tuple[list[Claim], Rows]:
    """Samples per second of a step, ours and the plain graph's."""
    claims: list[Claim] = []
    rows: Rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for kind in MODELS:
            with ExitStack() as stack:
                sides = {("fp32", "ours"): stack.enter_context(our_step(kind, batch, 3, 3, device))}
                sides["fp32", "plain"] = stack.enter_context(plain_step(kind, batch, 3, 3, device))
                if device == "cuda":
                    for precision in ("fp32", "bf16"):
                        step = our_step(kind, batch, 3, 3, device, precision, compiled=True)
                        sides[precision, "compiled"] = stack.enter_context(step)
                    sides["bf16", "ours"] = stack.enter_context(our_step(kind, batch, 3, 3, device, "bf16"))
                named = {"/".join(key): step for key, step in sides.items()}
                seconds = alternate(named, repeats if device == "cpu" else 20 * repeats)
            for name, found in seconds.items():
                precision, side = name.split("/")
                key = {"model": kind, "device": device, "batch": batch, "precision": precision, "side": side}
                rows.append(key | {"samples_per_s": batch / statistics.median(found), "what": "step"})
            if kind == "mfh":
                claims += _step_claims(batch, device, seconds)
    return claims, rows


def _step_claims(batch: int, device: str, seconds: dict[str, list[float]]) -> list[Claim]:
    """What MFH's steps say: its speed on the CPU, and its lead over the plain graph on the GPU where there is one."""
    claims = []
    if device == "cpu" and batch == HEADLINE_BATCH:
        speed = [batch / second for second in seconds["fp32/ours"]]
        how = f"mfh in the paper's sizes, 3 behaviours x 3 groups, a step of {batch} rows on the CPU"
        median = statistics.median(speed)
        claims.append(Claim("train.samples_per_s", median, "samples/s", min(speed), max(speed), how=how))
        if not torch.cuda.is_available():
            value, low, high = ratio(seconds["fp32/plain"], seconds["fp32/ours"])
            how = f"mfh, step on the CPU, {batch} rows; no GPU here, so no target of the GPU is judged"
            claims.append(Claim("train.vs_plain_graph", value, "times", low, high, how=how))
    if device == "cuda" and batch == GPU_BATCH:
        value, low, high = ratio(seconds["fp32/plain"], seconds["fp32/compiled"])
        how = f"mfh, compiled step on {_gpu()}, {batch} rows, fp32"
        claims.append(Claim("train.vs_plain_graph", value, "times", low, high, ">= 10", value >= 10, how))
    return claims


def _growth(repeats: int) -> tuple[list[Claim], Rows]:
    """How a step's time grows with groups and with behaviours."""
    pairs = {
        "train.groups_3_vs_1": ((3, 3), (3, 1), 1.35),
        "train.behaviours_12_vs_3": ((12, 3), (3, 3), 3.5),
    }
    claims, rows = [], []
    for name, (more, less, limit) in pairs.items():
        with ExitStack() as stack:
            sides = {
                f"{m} behaviours x {k} groups": stack.enter_context(our_step("mfh", HEADLINE_BATCH, m, k, "cpu"))
                for m, k in (more, less)
            }
            seconds = alternate(sides, repeats)
        value, low, high = ratio(*seconds.values())
        how = f"mfh, step of {HEADLINE_BATCH} rows on the CPU: {' / '.join(seconds)}"
        claims.append(Claim(name, value, "times", low, high, f"<= {limit}", value <= limit, how))
        rows += [
            {"what": side, "device": "cpu", "seconds": statistics.median(found)} for side, found in seconds.items()
        ]
    return claims, rows


def _tables(repeats: int) -> tuple[list[Claim], Rows]:
    """What the rules by which tables move cost when most rows of a table are not in the batch."""
    with ExitStack() as stack:
        rules = ("dense", "lazy", "rowwise")
        sides = {
            rule: stack.enter_context(our_step("mfh", HEADLINE_BATCH, 3, 3, "cpu", tables=rule, users=LARGE_TABLE))
            for rule in rules
        }
        seconds = alternate(sides, repeats)
    key = {"what": f"step, table of {LARGE_TABLE} users", "model": "mfh", "device": "cpu", "batch": HEADLINE_BATCH}
    return [], [key | {"side": rule, "seconds": statistics.median(found)} for rule, found in seconds.items()]


def _rechub(kind: str, batch: int, repeats: int, threads: int) -> tuple[list[Claim], Rows]:
    """Epochs end to end, each side in a process of its own, in turn."""
    names = ("ours", "rechub", "rechub_without_batchnorm")
    found: dict[str, list[Measured]] = {name: [] for name in names}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in names}
        for number in range(1 + repeats):
            for name, pool in pools.items():
                measured = pool.submit(epoch, Job(name, kind, batch, epoch_rows(batch), threads)).result()
                if number:
                    found[name].append(measured)
    seconds = {name: [one.seconds for one in measured] for name, measured in found.items()}
    rows: Rows = [
        {
            "what": "end to end",
            "model": kind,
            "device": "cpu",
            "batch": batch,
            "precision": "fp32",
            "side": name,
            "samples_per_s": epoch_rows(batch) / statistics.median(seconds[name]),
            "peak_mib": max(one.peak_mib for one in found[name]),
        }
        for name in names
    ]
    if batch != HEADLINE_BATCH:
        return [], rows
    value, low, high = ratio(seconds["rechub"], seconds["ours"])
    without = ratio(seconds["rechub_without_batchnorm"], seconds["ours"])[0]
    target = RECHUB[kind]
    how = (
        f"an epoch of {epoch_rows(batch)} rows end to end, {batch} a batch, {threads} threads; "
        f"{without:.2f} times without their BatchNorm"
    )
    name = f"train.{kind}_vs_torch_rechub"
    return [Claim(name, value, "times", low, high, f">= {target}", value >= target, how)], rows


def _gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def main() -> None:
    """Measure on a machine that has torch, numpy and pyarrow alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="file for the record")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    given = parser.parse_args()
    result = run(tuple(given.batches), given.repeats, given.threads)
    Path(given.json).write_text(result.json(), encoding="utf-8")


if __name__ == "__main__":
    main()
