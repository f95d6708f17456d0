"""Networks of both libraries through the steps, on image files of many sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from components.evaluate.evaluate import evaluate
from components.evaluate.interface import Evaluate
from components.export.export import export
from components.export.interface import Export
from components.models.artifact import read_config
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.train import train
from pipelines.predict import predict
from tests.ingestion import make_dataset
from tests.samples import write_tree

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(store: DirectoryStore, tmp_path: Path) -> Run:
    """Trains, evaluates and exports on a folder of images; gives what was published."""

    def steps(tree: Path, name: str, **options: Any) -> dict[str, Any]:
        out = tmp_path / name
        given: dict[str, Any] = {"dataset": make_dataset(tree, store.uri, out), "store": store.uri}
        train(Train(**given, **options, **places(out / "train", "model", "metrics", "curves")))
        given["model"] = out / "train" / "model"
        evaluate(Evaluate(**given, min_accuracy=0, **places(out, "verdict", "metrics", "confusion", "report")))
        given |= {"verdict": out / "verdict", "report": out / "report"}
        export(Export(**given, **places(out / "export", "release", "metrics", "summary")))
        published: dict[str, Any] = json.loads((out / "export" / "release").read_text())
        return published

    return steps


def places(folder: Path, *names: str) -> dict[str, Any]:
    """Where outputs of these names lie."""
    return {name: folder / name for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["mobilenet_v2", "squeezenet"])
def test_a_network_is_trained_judged_exported_and_predicts(
    architecture: str, run: Run, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_tree(tmp_path / "tree", per_class=20)
    published = run(tree, "first", architecture=architecture, image_size=16, epochs=1, batch_size=16)
    assert published["champion"]
    assert published["version"]["facts"]["architecture"] == architecture
    assert published["version"]["facts"]["shape"] == [16, 16, 3]
    assert published["parity"]["agreement"] == 1
    told = "squeezenet takes no images of 16x16: they are resized to 17x17 inside the network."
    assert (told in capsys.readouterr().out) == (architecture == "squeezenet")
    (seen,) = predict(store, "mnist", [tree / "disc" / "0.jpg"])
    assert seen.label in ("disc", "square", "stripes")


@pytest.mark.slow
def test_a_champion_is_trained_on_with_a_class_more(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_tree(tmp_path / "tree", per_class=20)
    common: dict[str, Any] = {"architecture": "squeezenet", "image_size": 32, "batch_size": 16, "epochs": 1}
    run(tree, "first", **common)
    (tree / "beams").mkdir()
    for path in sorted((tree / "stripes").iterdir()):
        with Image.open(path) as image:
            ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90).save(tree / "beams" / path.name)
    second = run(tree, "second", start="champion", **common)
    assert second["version"]["number"] == 2
    assert "starts from mnist version 1, the champion; new classes: beams" in capsys.readouterr().out
    assert read_config(tmp_path / "second" / "train" / "model").classes == ("beams", "disc", "square", "stripes")
