"""`retrain logs`."""

from typing import TYPE_CHECKING

import click

from pipelines.cli.cluster import cluster_flags

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow


@click.command()
@click.argument("run")
@click.argument("step")
@click.option("--follow", is_flag=True, help="Wait for the step, and show what it prints until it has ended.")
@cluster_flags
def logs(kubeflow: "Kubeflow", run: str, step: str, follow: bool) -> None:
    """Shows what a STEP of a RUN printed: its newest attempt, from the pod or else from Kubeflow's archive.

    `shard` runs once a worker: `shard/3` is the third of them.
    """
    from pipelines.logs import read

    kfp_namespace = click.get_current_context().params["kfp_namespace"]
    for line in read(kubeflow, run, step, kfp_namespace=kfp_namespace, follow=follow):
        click.echo(line)
