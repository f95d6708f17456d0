"""What ingest takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from components.registry import check_name
from components.step import Out, check_choices, require


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Turns labelled images into a dataset: shards in the store and a manifest that names them."""

    source: Annotated[str, "The labelled images: 'mnist', or a folder of IDX files, plain or gzipped."] = "mnist"
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    validation_fraction: Annotated[float, "Share of the training images that is set aside to steer the training."] = 0.1
    model_name: Annotated[str, "The model's name in the registry."] = "mnist"
    condition: Annotated[
        Literal["always", "changed"], "Whether to retrain also where neither the data nor the code changed."
    ] = "always"
    dataset: Annotated[Path, Out("Dataset"), "The manifest: classes, counts, statistics and the shards by key."]
    decision: Annotated[Path, Out("String"), "'retrain', or 'stop' where there is no reason to."]

    def __post_init__(self) -> None:
        check_name(self.model_name)
        check_choices(self)
        require(bool(self.source), "source", self.source, "be 'mnist' or a folder")
        require(0 < self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "be between 0 and 1")
