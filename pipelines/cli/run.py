"""`retrain run`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components import step
from components.step import StepError, UserError
from pipelines.parameters import check, parameters

LOCAL_STORE = "retrain-store"
"""The embedded default: a directory where the user stands."""


def pipeline_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds one option a pipeline parameter."""
    for field in reversed(parameters()):
        default = LOCAL_STORE if field.name == "store" else field.default
        kind: Any = click.Choice(["true", "false"]) if field.type is bool else field.type
        shown = str(default).lower() if field.type is bool else default
        among = f" One of {', '.join(field.choices)}." if field.choices else ""
        option = click.option(field.flag, type=kind, default=shown, show_default=True, help=field.help + among)
        command = option(command)
    return command


@click.command()
@pipeline_flags
def run(**values: Any) -> None:
    """Runs the compiled pipeline on this machine, each step a process of its own."""
    from pipelines import summary
    from pipelines.local import RunFailed
    from pipelines.local import run as run_pipeline
    from pipelines.retrain import compile
    from pipelines.settings import STOCK
    from pipelines.terminal import Terminal

    arguments = {field.name: typed(field, values[field.name]) for field in parameters()}
    check(arguments)
    arguments["store"], runs = local_store(arguments["store"])
    terminal = Terminal()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "retrain.yaml"
        compile(package, STOCK.without_retries())
        try:
            finished = run_pipeline(package, arguments, runs, terminal)
        except RunFailed as failed:
            raise (UserError if failed.step.code == 2 else StepError)(str(failed)) from None
    terminal.say(summary.screen(finished))


def typed(field: step.Field, value: Any) -> Any:
    """A flag's value as the parameter's type."""
    return step.boolean(value) if field.type is bool else value


def local_store(uri: str) -> tuple[str, Path]:
    """The store's absolute URI and the directory for the artifacts of runs on this machine."""
    from components.storage import DirectoryStore, open_store

    store = open_store(uri)
    store.require_writable()
    here = store if isinstance(store, DirectoryStore) else DirectoryStore(Path(LOCAL_STORE))
    here.require_writable()
    return store.uri, here.root / "runs"
