"""The pipeline's parameters: what an operator changes from run to run.

Only their names stand here; type, default, choices and description come from the steps' interfaces.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components import step
from components.evaluate.interface import Evaluate
from components.export.interface import Export
from components.ingest.interface import Ingest
from components.train.interface import Train

STEPS = (Ingest, Train, Evaluate, Export)

NAMES = (
    "source",
    "store",
    "model_name",
    "architecture",
    "activation",
    "pooling",
    "bias",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "gpus",
    "gpu_type",
    "min_accuracy",
    "max_drop",
    "condition",
)

CLUSTER_STORE = "s3://mlpipeline/retrain"
"""The bucket that every Kubeflow Pipelines installation has."""


def parameters() -> list[step.Field]:
    """The pipeline's parameters in the order of NAMES."""
    known = {field.name: field for interface in STEPS for field in step.fields(interface)}
    known["store"] = replace(known["store"], default=CLUSTER_STORE)
    return [known[name] for name in NAMES]


def check(values: Mapping[str, Any]) -> None:
    """Raises UserError where a step would refuse these parameters, before anything runs."""
    for interface in STEPS:
        fields = step.fields(interface)
        given = {field.name: values[field.name] for field in fields if field.name in values}
        missing: dict[str, Any] = {field.name: Path() for field in fields if field.required}
        interface(**(missing | given))
