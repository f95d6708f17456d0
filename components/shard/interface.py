"""What shard takes."""

from dataclasses import dataclass
from typing import Annotated

from components.step import require


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Reads, checks and writes the images of every chunk that falls to this worker; done chunks are passed over."""

    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    plan: Annotated[str, "The digest of the plan."]
    worker: Annotated[int, "The number of this worker, from 0; chunk after chunk falls to the workers in turn."]
    workers: Annotated[int, "How many workers there are at most: the plan's ingest_workers."]

    def __post_init__(self) -> None:
        require(self.workers >= 1, "workers", self.workers, "be at least 1")
        require(0 <= self.worker < self.workers, "worker", self.worker, f"be 0 to {self.workers - 1}")
