"""``mfh check NAME``: climb a rung of the trust ladder, print what was found, write its record.

The exit status is 1 when a rung failed. ``mfh check all`` writes the certificate that daily reports cite.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from components.checks.rung import Found, Notify
from components.progress import progress

app = typer.Typer(no_args_is_help=True, help="Climb a rung of the trust ladder; exit status 1 when one failed.")

JsonOption = Annotated[str | None, typer.Option("--json", help="File for the record, '-' for standard output.")]
WorldsOption = Annotated[int, typer.Option(min=2, max=1_000, help="Worlds that are reported on.")]
CalibrationOption = Annotated[int, typer.Option(min=0, max=1_000, help="Further worlds, for the widening.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes side by side.")]
RunsOption = Annotated[int, typer.Option(min=100, help="A/A runs of each kind.")]
KuaiRandOption = Annotated[Path | None, typer.Option("--kuairand", help="Folder of a KuaiRand edition.")]


@app.command()
def aa(out: JsonOption = None, runs: RunsOption = 1_000) -> None:
    """V1: does it find lifts where there are none?"""
    from components.checks.aa import check_aa

    _one(out, lambda notify: [check_aa(notify, runs)])


@app.command()
def backtest(out: JsonOption = None, kuairand: KuaiRandOption = None) -> None:
    """V2: simulating the logging policy on unseen days, do the logged numbers come back?"""
    from components.checks.backtests import backtests

    _one(out, lambda notify: backtests(notify, kuairand))


@app.command()
def truth(
    out: JsonOption = None,
    worlds: WorldsOption = 100,
    calibration: CalibrationOption = 24,
    workers: WorkersOption = 2,
) -> None:
    """V3: in worlds whose true lift is known, does the interval cover it?"""
    from components.checks.truth import check_truth

    _one(out, lambda notify: [check_truth(notify, worlds, calibration, workers)])


@app.command()
def agreement(out: JsonOption = None, worlds: WorldsOption = 3) -> None:
    """V4: do replay and rollouts agree where both can speak?"""
    from components.checks.agreements import check_agreement

    _one(out, lambda notify: [check_agreement(notify, worlds)])


@app.command()
def reference(
    data: Annotated[Path, typer.Option(help="Folder with one random_*.parquet and one bts_*.parquet.")],
    reference: Annotated[Path, typer.Option(help="JSON file of a public library's numbers on them.")],
    out: JsonOption = None,
) -> None:
    """V5: do the off-policy estimators equal a public library's?"""
    from components.checks.reference import check_reference

    _one(out, lambda notify: [check_reference(data, reference)])


@app.command()
def sensitivity(out: JsonOption = None) -> None:
    """V6: does the verdict survive other assumptions?"""
    from components.checks.sensitivity import check_sensitivity

    _one(out, lambda notify: [check_sensitivity(notify)])


@app.command("all")
def everything(
    out: Annotated[Path | None, typer.Option("--json", help="File for the certificate.")] = None,
    open_bandit: Annotated[
        Path | None,
        typer.Option(help="Folder with the Open Bandit files and reference.json; without it V5 is missing."),
    ] = None,
    kuairand: KuaiRandOption = None,
    worlds: WorldsOption = 100,
    calibration: CalibrationOption = 24,
    workers: WorkersOption = 2,
    runs: RunsOption = 1_000,
) -> None:
    """Climb all rungs and write the certificate that daily reports cite."""
    from components.checks.aa import check_aa
    from components.checks.agreements import check_agreement
    from components.checks.backtests import backtests
    from components.checks.certificate import CERTIFICATE, write
    from components.checks.reference import check_reference
    from components.checks.sensitivity import check_sensitivity
    from components.checks.truth import check_truth
    from components.config import SimulatorSettings

    found: list[Found] = []
    with progress() as notify:
        found.append(check_truth(notify, worlds, calibration, workers))
        found.append(check_aa(notify, runs))
        found += backtests(notify, kuairand)
        found.append(check_agreement(notify, max(2, worlds // 30)))
        if open_bandit is not None:
            found.append(check_reference(open_bandit, open_bandit / "reference.json"))
        found.append(check_sensitivity(notify))
    _certify(write(found, SimulatorSettings(), machine_facts(), out or CERTIFICATE))


@app.command()
def certify(
    records: Annotated[list[Path], typer.Argument(help="Records that single checks wrote with --json.")],
    out: Annotated[Path | None, typer.Option("--json", help="File for the certificate.")] = None,
) -> None:
    """Put the records of single checks together, where all are of this very simulator."""
    from components.checks.certificate import CERTIFICATE, read_records, write
    from components.config import SimulatorSettings

    settings = SimulatorSettings()
    _certify(write(read_records(records, settings), settings, machine_facts(), out or CERTIFICATE))


def _certify(record: dict[str, Any]) -> None:
    for one in record["rungs"]:
        typer.echo(f"{one['rung']}: {one['state']}. {one['sentence']}")
    raise typer.Exit(1 if any(one["state"] == "failed" for one in record["rungs"]) else 0)


def _one(out: str | None, check: Callable[[Notify], list[Found]]) -> None:
    with progress() as notify:
        found = check(notify)
    from components.checks.certificate import simulator_hash
    from components.config import SimulatorSettings

    record = {"simulator": simulator_hash(SimulatorSettings()), **machine_facts()}
    text = json.dumps(record | {"found": [one.record() for one in found]}, indent=1, default=str) + "\n"
    if out == "-":
        typer.echo(text)
    elif out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(text, encoding="utf-8")
    for one in found:
        typer.echo(f"{one.rung}: {one.state}. {one.sentence}", err=out == "-")
    raise typer.Exit(1 if any(one.state == "failed" for one in found) else 0)


def machine_facts() -> dict[str, object]:
    """Processor and versions, for records."""
    from importlib.metadata import version

    from benchmarks.claims import machine

    return {"machine": machine(), "versions": {name: version(name) for name in ("numpy", "numba", "torch", "scipy")}}
