"""`retrain compile`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.settings import read_settings


def settings_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say which cluster the pipeline is compiled for."""
    file = click.option(
        "--settings",
        type=click.Path(path_type=Path),
        help="A TOML file with the facts of the cluster.",
    )
    environment = click.option("--environment", default="", help="The section of the file that goes on top.")
    return file(environment(command))


@click.command()
@settings_flags
@click.option("--output", type=click.Path(path_type=Path), default="retrain.yaml", show_default=True, help="The file.")
def compile(settings: Path | None, environment: str, output: Path) -> None:
    """Writes the pipeline as YAML, ready for the Kubeflow UI; needs neither torch nor a cluster."""
    from pipelines.retrain import compile as compile_pipeline

    compile_pipeline(output, read_settings(settings, environment))
    click.echo(output)
