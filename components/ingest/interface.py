"""What ingest takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from components.ingest.limits import read_limits
from components.registry import check_name
from components.step import Out, check_choices


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Makes one dataset of what the workers wrote: checks it as a whole, and writes its manifest and a report."""

    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    plan: Annotated[str, "The digest of the plan; all of its chunks are done."]
    limits: Annotated[
        str, "How much of each fault the data may have, as in 'damaged=0.05 leaks=0'; see docs/data.md."
    ] = ""
    model_name: Annotated[str, "The model's name in the registry."] = "mnist"
    condition: Annotated[
        Literal["always", "changed"],
        "When to retrain: always, or only where the data or the code changed since the champion.",
    ] = "always"
    dataset: Annotated[Path, Out("Dataset"), "The manifest: classes, counts, statistics and the shards by key."]
    report: Annotated[Path, Out("HTML"), "What was found in the data, with pictures of what was turned away."]
    decision: Annotated[Path, Out("String"), "'retrain', or 'stop' where there is no reason to."]

    def __post_init__(self) -> None:
        check_name(self.model_name)
        check_choices(self)
        read_limits(self.limits)
