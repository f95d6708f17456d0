"""`retrain lr-find`."""

import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.plan.interface import Plan
from components.step import StepError, UserError
from pipelines.cli.run import given, run, typed
from pipelines.parameters import check, parameters

if TYPE_CHECKING:
    from components.dataset.manifest import Manifest
    from components.storage import Store

NAMES = (
    *("store", "model_name", "architecture", "image_size", "start", "activation", "pooling", "bias"),
    *("batch_size", "recipe", "seed", "gpus", "gpu_type"),
)
"""The parameters of the pipeline that decide which learning rate is a good one."""


@click.command("lr-find", params=[option for option in run.params if option.name in NAMES])
@click.option("--dataset", default="", help="The first digits of a dataset's digest; `retrain data list` has them.")
@click.option("--source", default="", help="What the dataset was made of; its newest one is taken.")
@click.option(
    "--output", type=click.Path(path_type=Path), default="lr-find.html", show_default=True, help="The page to write."
)
def lr_find(dataset: str, source: str, output: Path, **values: Any) -> None:
    """Finds a learning rate: trains on ever higher ones until the loss diverges, draws that, and keeps no weights.

    The dataset is the newest in the store, unless --dataset or --source says which.
    """
    if dataset and source:
        raise UserError(f"--dataset {dataset} and --source {source} both say which dataset is taken; give one of them")
    arguments = {field.name: typed(field, values[field.name]) for field in parameters() if field.name in NAMES}
    check(arguments)
    from components.dataset.manifest import write_manifest
    from components.storage import open_store

    store = open_store(arguments["store"])
    manifest = chosen(store, dataset, source)
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder, "dataset"), manifest)
        outputs = {"dataset": "dataset", "model": "model", "metrics": "metrics"}
        paths = {name: Path(folder, file) for name, file in outputs.items()} | {"curves": output}
        measure(arguments | {"store": store.uri} | paths)
        found = json.loads((Path(folder) / "metrics").read_text())
    click.echo(page(found, output))
    flags = [*given(*NAMES, "source"), *made_of(manifest, source)]
    click.echo(advice(found["learning_rate"], arguments, flags))


def chosen(store: "Store", dataset: str, source: str) -> "Manifest":
    """The dataset with this digest, or the newest of this source or of all. Raises UserError where there is none."""
    from components.dataset.catalogue import find, read
    from pipelines.datasets import listed

    if dataset:
        return find(store, dataset)
    found = [one for one in listed(store) if not one.unreadable and (not source or place(one.source) == place(source))]
    if not found:
        of, make = (f" of source {source!r}", f" --source {source}") if source else ("", "")
        raise UserError(f"store {store.uri} has no dataset{of} yet; `retrain run{make}` makes one")
    return read(store, found[-1].digest)


def made_of(manifest: "Manifest", source: str) -> list[str]:
    """What has `retrain run` take the source of a dataset that nobody named."""
    known = str(manifest.provenance.get("source", Plan.source))
    return [] if source or known == Plan.source else ["--source", known]


def place(source: str) -> str:
    """A source as a place: a path on this machine however it is written, anything else as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source.rstrip("/")


def measure(arguments: dict[str, Any]) -> None:
    """Runs the range test, as a process of its own. Raises UserError or StepError with its sentence where it fails."""
    from pipelines.local import StepRun, execute
    from pipelines.terminal import Terminal

    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    step = StepRun("lr-find", "", Path())
    execute(["python3", "-m", "components.train.range_test", *flags], {}, step, Terminal())
    if step.code:
        raise (UserError if step.code == UserError.code else StepError)(
            step.error or f"the range test ended with exit code {step.code}"
        )


def page(found: dict[str, Any], output: Path) -> str:
    """What was found, for a person."""
    from components.train.range_test.curve import Curve
    from components.train.range_test.page import plot

    rate = found["learning_rate"]
    lines = [
        plot(Curve(tuple(found["rates"]), tuple(found["losses"]))),
        "",
        f"learning rate {rate:g}: {found['reason']}, with batches of {found['batch_size']}",
        f"the curve: {output}",
    ]
    return "\n".join(lines)


def advice(rate: float, arguments: dict[str, Any], flags: list[str]) -> str:
    """What to do with the rate: the run of these flags, and what makes it another one than was measured."""
    lines = ["", f"Try next: {shlex.join(['retrain', 'run', *flags, '--learning-rate', f'{rate:g}'])}"]
    gpus = int(arguments["gpus"])
    if gpus > 1 and not arguments["batch_size"]:
        lines.insert(0, f"one GPU found it; {gpus} may take larger batches: give --batch-size here and there")
    return "\n".join(lines)
