"""The `retrain` command: a thin layer over the modules beside it; their errors become sentences and exit codes here."""

import json
import signal
import sys
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


class OneSentence(click.Group):
    """Turns the library's errors into one sentence on stderr and an exit code: 1 failed, 2 a user's mistake."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            fail(str(error), 2)
        except StepError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted; nothing half-written was left in the store", 130)


def fail(reason: str, code: int) -> None:
    click.echo(f"error: {reason}", err=True)
    sys.exit(code)


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="retrain")
def main() -> None:
    """Retrains image classifiers, again and again: on this machine, or on Kubeflow Pipelines."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


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


@main.command()
@pipeline_flags
def run(**values: Any) -> None:
    """Runs the compiled pipeline on this machine, each step a process of its own."""
    from pipelines import summary
    from pipelines.local import RunFailed
    from pipelines.local import run as run_pipeline
    from pipelines.retrain import compile
    from pipelines.terminal import Terminal

    arguments = {field.name: typed(field, values[field.name]) for field in parameters()}
    check(arguments)
    arguments["store"], runs = local_store(arguments["store"])
    terminal = Terminal()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "retrain.yaml"
        compile(package)
        try:
            finished = run_pipeline(package, arguments, runs, terminal)
        except RunFailed as failed:
            return fail(str(failed), 2 if failed.step.code == 2 else 1)
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


@main.command("compile")
@click.option("--output", type=click.Path(path_type=Path), default="retrain.yaml", show_default=True, help="The file.")
def compile_command(output: Path) -> None:
    """Writes the pipeline as YAML, ready for the Kubeflow UI; needs neither torch nor a cluster."""
    from pipelines.retrain import compile

    compile(output)
    click.echo(output)


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--store", default=LOCAL_STORE, show_default=True, help="Where models are kept.")
@click.option("--model-name", default="mnist", show_default=True, help="The model's name in the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {file, label, probability}.")
def predict(images: tuple[str, ...], store: str, model_name: str, as_json: bool) -> None:
    """Classifies PNG or JPEG files with the champion, through ONNX Runtime alone."""
    from dataclasses import asdict

    from components.storage import open_store
    from pipelines.predict import predict as classify

    predictions = classify(open_store(store), model_name, [Path(image) for image in images])
    if as_json:
        click.echo(json.dumps([asdict(prediction) for prediction in predictions], indent=2))
        return
    for prediction in predictions:
        click.echo(f"{prediction.file}: {prediction.label} ({prediction.probability:.1%})")
