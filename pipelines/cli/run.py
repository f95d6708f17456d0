"""`retrain run`."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from components import step
from components.loader.machine import cores
from components.step import StepError, UserError
from pipelines.parameters import check, parameters

if TYPE_CHECKING:
    from pipelines.local import Execute
    from pipelines.settings import Settings
    from pipelines.terminal import Terminal

LOCAL_STORE = "retrain-store"
"""The embedded default: a directory where the user stands."""

RUNNER = "What a step runs in: a process of its own, or a container."


def pipeline_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds one option a pipeline parameter."""
    here = {"store": LOCAL_STORE, "ingest_workers": cores()}
    for field in reversed(parameters()):
        default = here.get(field.name, field.default)
        kind: Any = click.Choice(["true", "false"]) if field.type is bool else field.type
        shown = str(default).lower() if field.type is bool else default
        among = f" One of {', '.join(field.choices)}." if field.choices else ""
        option = click.option(field.flag, type=kind, default=shown, show_default=True, help=field.help + among)
        command = option(command)
    return command


@click.command()
@pipeline_flags
@click.option("--runner", type=click.Choice(["process", "docker"]), default="process", show_default=True, help=RUNNER)
@click.option("--image", help="The image of every step's container, in place of the pipeline's.")
def run(runner: str, image: str | None, **values: Any) -> None:
    """Runs the compiled pipeline on this machine, each step a process or a container of its own."""
    arguments = {field.name: typed(field, values[field.name]) for field in parameters()}
    check(arguments)
    if image and runner == "process":
        raise UserError(f"--image {image} needs --runner docker; a process has no image")
    arguments["store"], runs = local_store(arguments["store"])

    # Not before: they bring kfp, which takes longer than to tell a mistake.
    from pipelines import summary
    from pipelines.local import RunFailed
    from pipelines.local import run as run_pipeline
    from pipelines.retrain import compile
    from pipelines.settings import STOCK
    from pipelines.terminal import Terminal

    terminal = Terminal()
    settings = with_image(STOCK.without_retries(), image)
    execute = execution(runner, arguments, runs.parent, settings, terminal)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "retrain.yaml"
        compile(package, settings)
        try:
            finished = run_pipeline(package, arguments, runs, terminal, execute)
        except RunFailed as failed:
            raise (UserError if failed.step.code == 2 else StepError)(str(failed)) from None
    terminal.say(summary.screen(finished, given("store", "model_name")))


def typed(field: step.Field, value: Any) -> Any:
    """A flag's value as the parameter's type."""
    return step.boolean(value) if field.type is bool else value


def given(*names: str) -> list[str]:
    """Which of these the user gave to the command that runs: flags and values, for another command to show."""
    context = click.get_current_context()
    typed = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    flags = {option.name: option.opts[0] for option in context.command.params}
    return [text for name in typed for text in (flags[name], str(context.params[name]))]


def with_image(settings: "Settings", image: str | None) -> "Settings":
    """The settings with one image for all the steps, where there is one."""
    steps = {name: replace(placement, image=image or placement.image) for name, placement in settings.steps.items()}
    return replace(settings, steps=steps)


def execution(
    runner: str, arguments: dict[str, Any], artifacts: Path, settings: "Settings", terminal: "Terminal"
) -> "Execute":
    """How the steps are run; a source on this machine becomes one that a container finds, too."""
    if runner == "process":
        from pipelines.local import execute

        return execute
    from pipelines.containers import Containers

    source = Path(arguments["source"]).expanduser().resolve()
    here = arguments["source"] != "mnist" and source.exists()
    arguments["source"] = str(source) if here else arguments["source"]
    containers = Containers(artifacts, [source if source.is_dir() else source.parent] if here else [])
    for image in sorted({placement.image for placement in settings.steps.values()}):
        containers.require(image, terminal)
    return containers.execute


def local_store(uri: str) -> tuple[str, Path]:
    """The store's absolute URI and the directory for the artifacts of runs on this machine."""
    from components.storage import DirectoryStore, open_store

    store = open_store(uri)
    store.require_writable()
    here = store if isinstance(store, DirectoryStore) else DirectoryStore(Path(LOCAL_STORE))
    here.require_writable()
    return store.uri, here.root / "runs"
