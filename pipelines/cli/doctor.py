"""`retrain doctor`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.cluster import cluster_flags
from pipelines.cli.compile import settings_flags
from pipelines.cli.run import LOCAL_STORE

if TYPE_CHECKING:
    from pipelines.doctor.cluster import Needs
    from pipelines.doctor.finding import Finding
    from pipelines.kubeflow import Kubeflow
    from pipelines.settings import Settings

SECONDS = 60.0
"""How long the machine may take, and again the cluster."""

COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@cluster_flags
@settings_flags
@click.option("--cluster", is_flag=True, help="Look at the cluster, too; so does --host or --context.")
@click.option("--store", default=LOCAL_STORE, show_default=True, help="The store to look at, from this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {area, name, state, seen, advice}.")
def doctor(
    kubeflow: "Kubeflow", settings: Path | None, environment: str, cluster: bool, store: str, as_json: bool
) -> None:
    """Looks at this machine, the store and a cluster, and says what to do. Exit code 1 if anything failed."""
    from pipelines.doctor import machine
    from pipelines.doctor.cluster import checks
    from pipelines.doctor.finding import examine
    from pipelines.settings import read_settings

    facts = read_settings(settings, environment)
    found = {"this machine": examine(machine.checks(store, Path(LOCAL_STORE)), SECONDS)}
    connection = kubeflow.connection
    if cluster or connection.host or connection.context:
        kfp_namespace = click.get_current_context().params["kfp_namespace"]
        looks = checks(kubeflow, lambda: needs(kubeflow, facts, kfp_namespace), connection.context)
        found["the cluster"] = examine(looks, SECONDS)
    click.echo(as_list(found) if as_json else screen(found))
    sys.exit(any(finding.state == "failed" for findings in found.values() for finding in findings))


def needs(kubeflow: "Kubeflow", settings: "Settings", kfp_namespace: str) -> "Needs":
    """What a run of ours needs there, where its pods will be."""
    from pipelines.doctor.cluster import Needs
    from pipelines.parameters import parameters
    from pipelines.pods import namespace
    from pipelines.submit import Order

    defaults = {field.name: field.default for field in parameters()}
    return Needs(
        namespace=namespace(kubeflow, kfp_namespace),
        service_account=Order.service_account,
        secret=settings.secret,
        gpu_type=defaults["gpu_type"],
        autoscaled=settings.autoscaled_gpus,
    )


def as_list(found: "Mapping[str, Sequence[Finding]]") -> str:
    """The findings as JSON."""
    flat = [{"area": area} | asdict(finding) for area, findings in found.items() for finding in findings]
    return json.dumps(flat, indent=2)


def screen(found: "Mapping[str, Sequence[Finding]]") -> str:
    """The findings for a person: a line each, and below it what to do where something is to be done."""
    lines = []
    for area, findings in found.items():
        lines += ["", click.style(area, bold=True)]
        for finding in findings:
            state = click.style(f"{finding.state:<8}", fg=COLORS[finding.state])
            lines.append(f"  {state} {finding.name:<20} {finding.seen}")
            lines += [f"{'':32}{finding.advice}"] if finding.advice else []
    return "\n".join(lines[1:])
