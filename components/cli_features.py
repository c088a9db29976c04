"""``mfh features``: the feature list, and what set-up does for it."""

from typing import Annotated

import typer
from rich.console import Console

from components.config import Settings, find_pipeline
from components.context import Context

app = typer.Typer(no_args_is_help=True, help="The feature list and Feast's registry.")

PipelineOption = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Name of a pipeline, or a YAML file; default: the only one.")
]


@app.command()
def apply(pipeline: PipelineOption = None) -> None:
    """Register entities, views and the feature service with Feast; nothing happens where they are registered."""
    from components.feature_list import service_name
    from components.feed.source import features_of
    from components.store import open_store

    settings = Settings().model_copy(update={"feast_apply": "missing"})
    context = Context(find_pipeline(settings, pipeline), settings)
    open_store(context)
    typer.echo(f"{context.pipeline.name}: {service_name(features_of(context.pipeline.feed))} is registered")


@app.command("list")
def show(pipeline: PipelineOption = None) -> None:
    """Print the feature list of a pipeline as a Markdown table."""
    from components.feature_table import table_of
    from components.feed.source import catalogue_of

    Console(soft_wrap=True, markup=False, highlight=False).print(
        table_of(catalogue_of(find_pipeline(Settings(), pipeline).feed))
    )
