"""What every command that talks to a cluster has in common."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

OPTIONS = (
    click.option(
        "--host",
        envvar="KF_PIPELINES_ENDPOINT",
        default="",
        show_envvar=True,
        help="The URL of Kubeflow Pipelines. Default: this cluster's inside one, a port-forward by kubectl elsewhere.",
    ),
    click.option("--namespace", default="", help="Of the runs, where Kubeflow has several users. Default: this pod's."),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="KF_PIPELINES_SA_TOKEN_PATH",
        show_envvar=True,
        help="Holds a bearer token. Without it: KF_PIPELINES_TOKEN, or the session of KF_PIPELINES_COOKIE.",
    ),
    click.option(
        "--ca",
        type=click.Path(path_type=Path),
        envvar="SSL_CERT_FILE",
        show_envvar=True,
        help="The certificates to trust, PEM. Default: the system's.",
    ),
    click.option("--context", default="", help="Of the kubeconfig. Default: its current one."),
    click.option("--kfp-namespace", default="kubeflow", show_default=True, help="Where Kubeflow Pipelines itself is."),
)


def cluster_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags that say which cluster, and an open client as its argument `kubeflow`."""

    @functools.wraps(command)
    def connected(**given: Any) -> Any:
        from pipelines.connection import Options, connect

        names = ("host", "namespace", "token_file", "ca", "context", "kfp_namespace")
        with connect(Options(**{name: given.pop(name) for name in names})) as kubeflow:
            return command(kubeflow=kubeflow, **given)

    for option in reversed(OPTIONS):
        connected = option(connected)
    return connected
