"""``mfh model …``: look at the models of the zoo."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components.config import MODEL_KINDS, Settings, find_pipeline
from components.errors import ConfigError
from components.models.settings import ModelRecipe

app = typer.Typer(no_args_is_help=True, help="Look at the models of the zoo.")


@app.command()
def describe(
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODEL_KINDS)}, or a model of the pipeline's file.")],
    behaviours: Annotated[int, typer.Option(min=1, help="m, tasks of each group.")] = 3,
    groups: Annotated[int, typer.Option(min=1, help="k, user groups.")] = 3,
    item_groups: Annotated[int | None, typer.Option(min=1, help="Item groups, for a third facet.")] = None,
    inputs: Annotated[int, typer.Option(min=1, help="D, width of the encoder's output.")] = 100,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Take sizes from this pipeline; default: the paper's.")
    ] = None,
    out: Annotated[str | None, typer.Option("--json", help="File for the graph, '-' for standard output.")] = None,
) -> None:
    """Print a model's graph: every switcher and tower with its shape and number of parameters."""
    from components.models.zoo import build, nodes

    facets = (groups,) if item_groups is None else (groups, item_groups)
    found = nodes(build(_recipe(model, pipeline), inputs, behaviours, facets))
    total = sum(node.parameters for node in found)
    if out is None:
        table = Table("block", "kind", "level", "branches", "in", "out", "parameters", title=model)
        for node in found:
            sizes = (node.level, node.branches, node.inputs, node.outputs)
            table.add_row(node.name, node.kind, *map(str, sizes), f"{node.parameters:,}")
        table.add_row("all", "", "", "", "", "", f"{total:,}", style="bold")
        Console().print(table)
        return
    rows = [
        {
            "name": node.name,
            "kind": node.kind,
            "level": node.level,
            "branches": node.branches,
            "in": node.inputs,
            "out": node.outputs,
            "parameters": node.parameters,
        }
        for node in found
    ]
    text = json.dumps({"nodes": rows, "total": total}, indent=1) + "\n"
    if out == "-":
        sys.stdout.write(text)
    else:
        Path(out).write_text(text, encoding="utf-8")


def _recipe(model: str, pipeline: str | None) -> ModelRecipe:
    if pipeline is not None:
        found = find_pipeline(Settings(), pipeline)
        if model in found.models or model in MODEL_KINDS:
            return found.recipe(model)
        raise ConfigError(f"no model {model!r}; known are {', '.join((*sorted(found.models), *MODEL_KINDS))}")
    kinds = {kind: kind for kind in MODEL_KINDS}
    if model not in kinds:
        raise ConfigError(f"no model {model!r}; known are {', '.join(MODEL_KINDS)}")
    return ModelRecipe(kinds[model])
