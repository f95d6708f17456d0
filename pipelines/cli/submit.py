"""`retrain submit`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components import step
from pipelines.cli.cluster import cluster_flags
from pipelines.cli.compile import settings_flags
from pipelines.parameters import parameters

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow
    from pipelines.settings import Settings
    from pipelines.submit import Report
    from pipelines.terminal import Terminal


def given_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds one option a pipeline parameter, None where it is not given: its default is the pipeline version's."""
    for field in reversed(parameters()):
        kind: Any = click.Choice(["true", "false"]) if field.type is bool else field.type
        among = f" One of {', '.join(field.choices)}." if field.choices else ""
        command = click.option(field.flag, type=kind, default=None, help=field.help + among)(command)
    return command


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The parameters that were given as flags, taken out of `values`."""
    found = {field: values.pop(field.name) for field in parameters()}
    return {
        field.name: step.boolean(value) if field.type is bool else value
        for field, value in found.items()
        if value is not None
    }


@click.command()
@given_flags
@click.option("--parameters", "file", type=click.Path(path_type=Path), help="Parameters, YAML or JSON; flags win.")
@click.option("--experiment", default="retrain", show_default=True, help="Made where it does not exist.")
@click.option(
    "--pipeline-version",
    default="",
    help="By name, or 'latest'. Default: the version that `retrain upload` makes of this code and these settings.",
)
@settings_flags
@click.option("--service-account", default="retrain-runner", show_default=True, help="As which the pods run.")
@click.option(
    "--idempotency-key",
    default="",
    help="Whatever is submitted again with this key, say by a CI job that is repeated, is the run that exists.",
)
@click.option("--wait", is_flag=True, help="Show the steps until the run ends; exit code 3 if its model is rejected.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait, in place of for ever; exit code 4.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Cancel the run when the waiting is interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print one object in the end; progress goes to stderr.")
@cluster_flags
def submit(
    kubeflow: "Kubeflow",
    file: Path | None,
    experiment: str,
    pipeline_version: str,
    settings: Path | None,
    environment: str,
    service_account: str,
    idempotency_key: str,
    wait: bool,
    timeout: float | None,
    cancel_on_interrupt: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Starts a run on Kubeflow Pipelines.

    Exit codes: 0 started, or with --wait accepted; 1 the run failed; 2 a mistake of yours; 3 the model was rejected; 4
    timeout; 5 the server, or with --wait the store that holds the verdict, cannot be reached.
    """
    from pipelines.settings import read_settings
    from pipelines.submit import (
        Order,
        Report,
        address,
        check_gpus,
        checked,
        earlier,
        find_version,
        prepare,
        read_parameters,
        start,
    )
    from pipelines.terminal import Terminal

    if not wait and (timeout is not None or cancel_on_interrupt):
        raise step.UserError("--timeout and --cancel-on-interrupt say how to wait; give --wait too")
    facts = read_settings(settings, environment)
    order = Order(
        parameters=checked((read_parameters(file) if file else {}) | given(values)),
        version=pipeline_version or own_version(facts),
        experiment=experiment,
        service_account=service_account,
        key=idempotency_key,
    )
    run_id = order.run_id(kubeflow.namespace)
    terminal = Terminal(sys.stderr if as_json else None)
    placed = kubeflow.find_experiment(experiment, kubeflow.namespace)
    submitted, version = earlier(kubeflow, order, run_id, placed), order.version
    if submitted is None:
        found = find_version(kubeflow, version)
        if not facts.autoscaled_gpus:
            check_gpus(kubeflow, order)
        draft, version = prepare(kubeflow, order, run_id, placed, found), found.name or found.display_name
    with interruption(kubeflow, run_id, cancel_on_interrupt):
        submitted = submitted or start(kubeflow, draft)
        report = Report(
            submitted=submitted,
            order=order,
            version=version,
            namespace=kubeflow.namespace,
            url=address(kubeflow, submitted.run_id),
        )
        terminal.say(opening(report))
        try:
            if wait:
                follow_to_verdict(kubeflow, report, timeout, terminal)
        finally:
            if as_json:
                click.echo(report.json())


def own_version(settings: "Settings") -> str:
    """The name of the version that `retrain upload` makes of this code and these settings."""
    import tempfile

    from pipelines.retrain import compile
    from pipelines.upload import version_name

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "retrain.yaml"
        compile(package, settings)
        return version_name(package)


def opening(report: "Report") -> str:
    """Which run it is and where it can be seen."""
    state = "started" if report.submitted.created else "was started before with this key"
    seen = f"`retrain status {report.submitted.run_id}`; for a link set KF_PIPELINES_UI_ENDPOINT"
    where = report.url or seen
    return f"run {report.submitted.run_id} {state}: {where}"


def follow_to_verdict(kubeflow: "Kubeflow", report: "Report", timeout: float | None, terminal: "Terminal") -> None:
    """Shows the run until it ends, and what became of its model."""
    from pipelines.narration import Narrator
    from pipelines.releases import Unreadable
    from pipelines.runs import follow
    from pipelines.submit import Rejected, Untold, outcome, require_success, verdict

    narrator = Narrator(terminal)
    for run in follow(kubeflow, report.submitted.run_id, timeout):
        narrator.show(run)
        report.run = run
    require_success(run)
    try:
        report.release = outcome(run)
        headline, reasons = verdict(run, report.release)
    except Unreadable as error:
        if report.release is None:
            what = f"run {run.id} succeeded; whether its model was accepted cannot be told from here"
            raise Untold(f"{what}: {error}") from None
        version = report.release.version
        headline = f"{'accepted' if report.release.accepted else 'REJECTED'}: {version.name} version {version.number}"
        reasons = [f"the reasons cannot be read from here: {error}"]
    if report.release and not report.release.accepted:
        raise Rejected("; ".join([headline, *reasons]))
    for line in (headline, *(f"  {reason}" for reason in reasons)):
        terminal.say(line)


@contextmanager
def interruption(kubeflow: "Kubeflow", run_id: str, cancel: bool) -> Iterator[None]:
    """Says, when the user interrupts, what becomes of the run; cancels it first if that is wanted."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        from pipelines.runs import cancel as cancel_run

        fate = cancel_run(kubeflow, run_id) if cancel else f"run {run_id} goes on; see `retrain status {run_id}`"
        raise type(interrupt)(f"interrupted; {fate}") from None
