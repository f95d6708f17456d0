"""`retrain predict`."""

import json
from pathlib import Path

import click

from pipelines.cli.run import LOCAL_STORE


@click.command()
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
