"""One set of images in every layout."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from components.storage import DirectoryStore
from tests.components.source.archives import tar
from tests.components.source.reading import fill
from tests.ingestion import make_dataset


def draw(label: str, number: int) -> bytes:
    """A picture as a JPEG file."""
    pixels = np.random.default_rng([ord(label), number]).integers(0, 256, (8, 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((4, 4, 1), np.uint8))).save(content, "JPEG")
    return content.getvalue()


IMAGES = {(label, number): draw(label, number) for label in "ab" for number in range(20)}


def columns() -> bytes:
    table = {"image": list(IMAGES.values()), "label": [label for label, _ in IMAGES]}
    content = io.BytesIO()
    parquet.write_table(pa.table(table), content, row_group_size=7)
    return content.getvalue()


def samples() -> bytes:
    members = []
    for (label, number), image in IMAGES.items():
        members += [(f"{label}{number}.jpg", image), (f"{label}{number}.txt", label.encode())]
    return tar(members)


@pytest.mark.slow
def test_the_same_images_make_the_same_dataset_whatever_layout_they_come_in(tmp_path: Path) -> None:
    files = {f"{label}/{number}.jpg": image for (label, number), image in IMAGES.items()}
    table = "uri,label\n" + "".join(f"{label}/{number}.jpg,{label}\n" for label, number in reversed(IMAGES))
    tree = fill(DirectoryStore(tmp_path / "tree"), files | {"labels.csv": table.encode()})
    sources = {
        "tree": tree,
        "table": f"{tree}/labels.csv",
        "parquet": fill(DirectoryStore(tmp_path / "parquet"), {"a.parquet": columns()}),
        "webdataset": fill(DirectoryStore(tmp_path / "webdataset"), {"a.tar": samples()}),
        "shards": str(tmp_path / "tree-store" / "datasets" / "shards"),  # what the first of them was made into
    }
    made = {
        name: json.loads(make_dataset(uri, str(tmp_path / f"{name}-store"), tmp_path / f"{name}-made").read_text())
        for name, uri in sources.items()
    }
    assert {name: manifest["digest"] for name, manifest in made.items()} == dict.fromkeys(made, made["tree"]["digest"])
    assert made["tree"]["counts"] == {
        "train": {"a": 16, "b": 16},
        "validation": {"a": 2, "b": 2},
        "test": {"a": 2, "b": 2},
    }
