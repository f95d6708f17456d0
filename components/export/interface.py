"""What export takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from components.registry import check_name
from components.step import In, Out


@dataclass(frozen=True, kw_only=True)
class Export:
    """Exports a model to ONNX, proves that it answers like PyTorch, and publishes it; if accepted, as champion."""

    dataset: Annotated[Path, In("Dataset"), "The manifest that ingest wrote; its test images are the proof's."]
    model: Annotated[Path, In("Model"), "The directory that train wrote."]
    verdict: Annotated[Path, In("Artifact"), "What evaluate decided."]
    report: Annotated[Path, In("HTML"), "The report of the run, published beside the model."]
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    model_name: Annotated[str, "The model's name in the registry."] = "mnist"
    run_id: Annotated[str, "The ID of the run, noted in the registry."] = ""
    release: Annotated[Path, Out("Artifact"), "What was published: version, champion or not, and where, as JSON."]
    metrics: Annotated[Path, Out("Metrics"), "Largest difference to PyTorch, agreement and size."]
    summary: Annotated[Path, Out("Markdown"), "The run in a few lines, for the UI."]

    def __post_init__(self) -> None:
        check_name(self.model_name)
