"""What ingest takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from components.step import Out, require


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Turns labelled images into a dataset: shards in the store and a manifest that names them."""

    source: Annotated[str, "The labelled images: 'mnist', or a folder of IDX files, plain or gzipped."] = "mnist"
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    validation_fraction: Annotated[float, "Share of the training images that is set aside to steer the training."] = 0.1
    dataset: Annotated[Path, Out("Dataset"), "The manifest: classes, counts, statistics and the shards by key."]

    def __post_init__(self) -> None:
        require(bool(self.source), "source", self.source, "be 'mnist' or a folder")
        require(0 < self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "be between 0 and 1")
