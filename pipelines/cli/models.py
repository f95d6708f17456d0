"""`retrain models`."""

import json

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, as_json: bool) -> None:
    """Lists the networks that can be trained, or explains the one of this NAME: resnet18, timm/resnet26, ..."""
    from pipelines import models

    if as_json:
        click.echo(json.dumps(models.facts(name) if name else models.list_facts(), indent=2, ensure_ascii=False))
    else:
        click.echo(models.page(name) if name else models.list_page())
