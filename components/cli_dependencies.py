"""``mfh dependencies …``: what the project is built of."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="What the project is built of.")


@app.command()
def check() -> None:
    """Look for known vulnerabilities and for licences that need a lawyer; exit with status 1 where there are any."""
    from components.dependencies import licences, questionable, vulnerabilities

    packages = licences()
    asked = questionable(packages)
    for one in asked:
        typer.echo(f"licence: {one.name} {one.version}: {one.licence}")
    audit = vulnerabilities()
    for flaw in audit.found:
        fix = ", ".join(flaw.fixed_in) or "no version yet"
        typer.echo(f"vulnerability: {flaw.package} {flaw.version}: {flaw.id}, mended in {fix}")
    typer.echo(f"{len(packages)} packages, {len(asked)} licences to look at")
    if audit.reason or not audit.asked:
        typer.echo(f"vulnerabilities are unknown: {audit.reason or 'the database knew none of the packages'}")
    else:
        typer.echo(f"{len(audit.found)} known vulnerabilities in {audit.asked} packages, {audit.unknown} not audited")
    raise typer.Exit(1 if asked or audit.found else 0)


@app.command()
def licences() -> None:
    """List every package with its licence."""
    from components.dependencies import licences as find

    table = Table("package", "version", "licence")
    for one in find():
        table.add_row(one.name, one.version, one.licence)
    Console().print(table)


@app.command()
def sbom(out: Annotated[str, typer.Option(help="File for the CycloneDX document, '-' for standard output.")]) -> None:
    """Write a software bill of materials."""
    from components.dependencies import bill_of_materials

    text = bill_of_materials()
    if out == "-":
        typer.echo(text)
    else:
        Path(out).write_text(text, encoding="utf-8")
