"""`retrain compile`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.step import UserError, require
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
    facts = read_settings(settings, environment)
    require(output.name.endswith((".yaml", ".yml")), "--output", str(output), "be a file whose name ends in .yaml")
    require(not output.is_dir(), "--output", str(output), "be a file, and no directory of that name")

    # Not before: it brings kfp, which takes longer than to tell a mistake.
    from pipelines.retrain import compile as compile_pipeline

    try:
        compile_pipeline(output, facts)
    except OSError as error:
        raise UserError(f"--output {str(output)!r} cannot be written ({error.strerror}); name another file") from None
    click.echo(output)
