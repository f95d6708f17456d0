"""`retrain upload`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.cluster import cluster_flags
from pipelines.cli.compile import settings_flags

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow


@click.command()
@cluster_flags
@settings_flags
@click.option("--shared", is_flag=True, help="Puts the pipeline where all namespaces see it, not into --namespace.")
@click.option(
    "--custom-resources",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Writes Pipeline and PipelineVersion custom resources there, for GitOps, and sends nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def upload(
    kubeflow: "Kubeflow",
    settings: Path | None,
    environment: str,
    shared: bool,
    custom_resources: Path | None,
    as_json: bool,
) -> None:
    """Compiles the pipeline and uploads it as a version, unless the server has the same content already."""
    import dataclasses
    import json

    from pipelines.settings import read_settings
    from pipelines.upload import upload as put
    from pipelines.upload import write_custom_resources

    facts = read_settings(settings, environment)
    if custom_resources:
        paths = write_custom_resources(custom_resources, facts, "" if shared else kubeflow.namespace)
        click.echo(json.dumps([str(path) for path in paths]) if as_json else "\n".join(map(str, paths)))
        return
    up = put(kubeflow, facts, shared=shared)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(up)))
        return
    click.echo(f"{up.name} " + ("is uploaded" if up.new else "was there already; nothing was sent"))
    click.echo(f"pipeline {up.pipeline_id}\nversion  {up.version_id}" + (f"\n{up.url}" if up.url else ""))
