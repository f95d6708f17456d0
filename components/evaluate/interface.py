"""What evaluate takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from components.registry import check_name
from components.step import In, Out, require


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judges a model on the test split, once, against the limits and the champion of the registry."""

    dataset: Annotated[Path, In("Dataset"), "The manifest that ingest wrote."]
    model: Annotated[Path, In("Model"), "The directory that train wrote."]
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    model_name: Annotated[str, "The model's name in the registry."] = "mnist"
    min_accuracy: Annotated[float, "The least test accuracy, from 0 to 1, that is accepted."] = 0.9
    max_drop: Annotated[float, "How much test accuracy, from 0 to 1, a new champion may lose against the last."] = 0.0
    verdict: Annotated[Path, Out("Artifact"), "Accepted or rejected, the reasons and every figure, as JSON."]
    metrics: Annotated[Path, Out("Metrics"), "Accuracy and macro averages."]
    confusion: Annotated[Path, Out("ClassificationMetrics"), "The confusion matrix."]
    report: Annotated[Path, Out("HTML"), "The report of the run, self-contained."]

    def __post_init__(self) -> None:
        check_name(self.model_name)
        require(0 <= self.min_accuracy <= 1, "min_accuracy", self.min_accuracy, "lie between 0 and 1")
        require(0 <= self.max_drop <= 1, "max_drop", self.max_drop, "lie between 0 and 1")
