"""`retrain status`."""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.cluster import cluster_flags

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow

WATCH_SECONDS = 3.0


@click.command()
@click.argument("run", default="")
@click.option("--limit", type=click.IntRange(min=1, max=200), default=10, show_default=True, help="Runs to show.")
@click.option("--experiment", default="", help="Only the runs and schedules of this experiment.")
@click.option("--store", default="", help="Where champion and verdicts are read. Default: the store of the newest run.")
@click.option("--model-name", default="", help="The model's name in the registry. Default: that of the newest run.")
@click.option("--watch", is_flag=True, help="Show it again every few seconds; a RUN until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@cluster_flags
def status(
    kubeflow: "Kubeflow",
    run: str,
    limit: int,
    experiment: str,
    store: str,
    model_name: str,
    watch: bool,
    as_json: bool,
) -> None:
    """Shows the newest runs, the champion and the next scheduled runs; or one RUN with its steps and verdict."""
    from pipelines import pages
    from pipelines.overview import look, look_at

    def shown() -> tuple[str, bool]:
        if run:
            one = look_at(kubeflow, run, store)
            return (dumped(pages.closeup_facts(one)) if as_json else pages.run_page(one)), one.run.ended
        seen = look(kubeflow, experiment=experiment, store=store, model=model_name, limit=limit)
        return (dumped(pages.facts(seen)) if as_json else pages.page(seen)), False

    show(shown, watch)


def dumped(found: dict[str, Any]) -> str:
    """One object; the registry's facts are JSON already."""
    return json.dumps(found, indent=2)


def show(shown: Callable[[], tuple[str, bool]], watch: bool) -> None:
    """Prints the page; with `watch` again whenever it has changed, in a terminal in place, until it is final.

    A server that goes away while it is watched is asked again, for as long as `retrain submit --wait` would.
    """
    from pipelines.kubeflow import ServerError
    from pipelines.runs import PATIENCE_SECONDS

    before, answered = "", float("-inf")
    while True:
        try:
            text, final = shown()
            answered = time.monotonic()
        except ServerError:
            if not watch or time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            text, final = before, False
        if text != before:
            if watch and sys.stdout.isatty():
                click.clear()
            click.echo(text)
        before = text
        if final or not watch:
            return
        time.sleep(WATCH_SECONDS)
