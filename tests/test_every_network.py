"""Every network by name goes the whole way on real digits: trained, judged, exported, published, asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.dataset.manifest import read_manifest
from components.evaluate.evaluate import evaluate
from components.evaluate.interface import Evaluate
from components.export.export import export
from components.export.interface import Export
from components.loader.batches import batches
from components.models import ARCHITECTURES
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.train import train
from pipelines.predict import predict
from tests.commands import release, retrain
from tests.conftest import Ingested
from tests.ingestion import make_dataset
from tests.samples import write_idx

pytestmark = pytest.mark.slow

FOREIGN = ("timm/convnext_atto", "timm/efficientnet_lite0", "torchvision/googlenet", "torchvision/regnet_y_400mf")
"""Some of timm's and torchvision's that have no short name."""


@pytest.fixture(scope="module")
def digits(mnist: Ingested, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """A hundred real digits to train on, twenty to test with."""
    room = tmp_path_factory.mktemp("digits")
    (room / "idx").mkdir()
    for part, split, each in (("train", "train", 10), ("t10k", "test", 2)):
        images, labels = next(batches(mnist.store, read_manifest(mnist.manifest), split, (28, 28, 1), 2000))
        some = np.concatenate([np.flatnonzero(labels == digit)[:each] for digit in range(10)])
        write_idx(room / "idx" / f"{part}-images-idx3-ubyte", images[some, :, :, 0])
        write_idx(room / "idx" / f"{part}-labels-idx1-ubyte", labels[some].astype(np.uint8))
    store = room / "store"
    return Ingested(make_dataset(room / "idx", str(store), room), DirectoryStore(store))


@pytest.fixture
def picture(digits: Ingested, tmp_path: Path) -> Path:
    images, _ = next(batches(digits.store, read_manifest(digits.manifest), "test", (28, 28, 1), 1))
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *FOREIGN])
def test_a_network_goes_from_digits_to_a_champion_that_answers(
    architecture: str, digits: Ingested, picture: Path, tmp_path: Path
) -> None:
    name = architecture.replace("/", "-")

    def to(*outputs: str) -> dict[str, Any]:
        return {output: tmp_path / output for output in outputs}

    common: dict[str, Any] = {"dataset": digits.manifest, "store": digits.store.uri, "model_name": name}
    trained = to("model", "metrics", "curves")
    metadata = train(Train(**common, architecture=architecture, epochs=1, batch_size=24, **trained))
    assert metadata["model"]["architecture"] == architecture

    judged = to("verdict", "confusion", "report")
    evaluate(Evaluate(**common, model=trained["model"], min_accuracy=0, metrics=tmp_path / "judged", **judged))

    published: dict[str, Any] = {"verdict": judged["verdict"], "report": judged["report"], **to("release", "summary")}
    export(Export(**common, model=trained["model"], metrics=tmp_path / "exported", **published))
    told = json.loads((tmp_path / "release").read_text())
    assert told["champion"]
    assert told["parity"]["images"] == 20
    assert told["parity"]["agreement"] == 1

    (answer,) = predict(digits.store, name, [picture])
    assert answer.label in map(str, range(10))


@pytest.mark.parametrize("architecture", ["squeezenet", "resnet18"])
def test_the_compiled_pipeline_trains_a_deep_network_too(architecture: str, digits: Ingested, tmp_path: Path) -> None:
    source = digits.manifest.parent / "idx"
    flags = ["--architecture", architecture, "--epochs", 2, "--batch-size", 24, "--min-accuracy", 0]
    ended = retrain("run", "--source", source, *flags, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    published = release(tmp_path / "retrain-store")
    assert published["champion"]
    assert published["version"]["facts"]["architecture"] == architecture
