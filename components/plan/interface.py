"""What plan takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from components.step import Out, require


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Looks at the labelled images of a source, decides how they are split, and cuts the work into chunks."""

    source: Annotated[str, "The labelled images: 'mnist', or a directory, file or s3:// prefix; see docs/data.md."] = (
        "mnist"
    )
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    parent: Annotated[str, "The digest of a dataset in the store to append the source to; empty for a new one."] = ""
    validation_fraction: Annotated[
        float, "Share of the images to steer the training by, unless the source says which."
    ] = 0.1
    test_fraction: Annotated[float, "Share of the images to judge the model by, unless the source says which."] = 0.1
    ingest_workers: Annotated[int, "Pods, or processes on one machine, that read the source at the same time."] = 1
    max_pixels: Annotated[int, "Width times height of an image; a larger one is quarantined, never decoded."] = (
        50_000_000
    )
    plan: Annotated[Path, Out("String"), "The digest of the plan; it lies in the store."]
    workers: Annotated[Path, Out("List"), "The numbers of the workers, as JSON: at most one a chunk."]

    def __post_init__(self) -> None:
        require(bool(self.source), "source", self.source, "be 'mnist', a directory, a file or an s3:// prefix")
        for name in ("validation_fraction", "test_fraction"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "be between 0 and 1")
        together = self.validation_fraction + self.test_fraction
        require(together < 1, "validation_fraction + test_fraction", together, "be less than 1")
        require(self.ingest_workers >= 1, "ingest_workers", self.ingest_workers, "be at least 1")
        require(self.max_pixels >= 1, "max_pixels", self.max_pixels, "be at least 1")
