"""`retrain data`: list, describe, diff."""

import json
from typing import Any

import click

from pipelines.cli.run import LOCAL_STORE

store_flag = click.option("--store", default=LOCAL_STORE, show_default=True, help="Where the datasets are kept.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def data() -> None:
    """Shows the datasets of a store, and how they differ. A DATASET is the beginning of its digest."""


@data.command("list")
@store_flag
@json_flag
def list_(store: str, as_json: bool) -> None:
    """Lists every dataset, the newest last."""
    from components.storage import open_store
    from pipelines import datasets

    found = datasets.listed(open_store(store))
    say(datasets.list_facts(found) if as_json else datasets.list_page(found, store))


@data.command()
@click.argument("dataset")
@store_flag
@json_flag
def describe(dataset: str, store: str, as_json: bool) -> None:
    """Shows what a DATASET holds, where it came from and what the checks found; as JSON its whole manifest."""
    from components.dataset.catalogue import find
    from components.dataset.manifest import encode
    from components.storage import open_store
    from pipelines import datasets

    manifest = find(open_store(store), dataset)
    click.echo(encode(manifest).decode().rstrip() if as_json else datasets.page(manifest))


@data.command()
@click.argument("old")
@click.argument("new")
@store_flag
@json_flag
def diff(old: str, new: str, store: str, as_json: bool) -> None:
    """Shows what became of the dataset OLD in NEW: added, removed, relabelled, and the balance of the classes."""
    from components.dataset.catalogue import find
    from components.dataset.comparison import compare
    from components.storage import open_store
    from pipelines import datasets

    shelf = open_store(store)
    before, after = find(shelf, old), find(shelf, new)
    found = compare(shelf, before, after)
    page = datasets.comparison_facts if as_json else datasets.comparison_page
    say(page(before, after, found))


def say(found: Any) -> None:
    """Prints text as it is, anything else as JSON."""
    click.echo(found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False))
