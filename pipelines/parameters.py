"""The pipeline's parameters: what an operator changes from run to run.

Only their names stand here; type, default, choices and description come from the steps' interfaces.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from components import step
from components.evaluate.interface import Evaluate
from components.export.interface import Export
from components.ingest.interface import Ingest
from components.plan.interface import Plan
from components.shard.interface import Shard
from components.train.interface import Train

STEPS = (Plan, Shard, Ingest, Train, Evaluate, Export)

NAMES = (
    "source",
    "parent",
    "store",
    "model_name",
    "validation_fraction",
    "test_fraction",
    "max_pixels",
    "limits",
    "ingest_workers",
    "architecture",
    "image_size",
    "start",
    "activation",
    "pooling",
    "bias",
    "epochs",
    "batch_size",
    "learning_rate",
    "recipe",
    "seed",
    "gpus",
    "gpu_type",
    "nodes",
    "checkpoint_minutes",
    "min_accuracy",
    "max_drop",
    "condition",
)

ALIASES = {"workers": "ingest_workers"}
"""What a step calls otherwise than the pipeline does."""

PIPELINE = "retrain"
"""The pipeline's name on a server."""

CLUSTER_STORE = "s3://mlpipeline/retrain"
"""The bucket that every Kubeflow Pipelines installation has."""


def parameters() -> list[step.Field]:
    """The pipeline's parameters in the order of NAMES."""
    known = {field.name: field for interface in STEPS for field in step.fields(interface)}
    known["store"] = replace(known["store"], default=CLUSTER_STORE)
    return [known[name] for name in NAMES]


def check(values: Mapping[str, Any]) -> None:
    """Raises UserError where a step would refuse these parameters, before anything runs."""
    values = {field.name: field.default for field in parameters()} | dict(values)
    for interface in STEPS:
        fields = step.fields(interface)
        missing = {field.name: field.type() for field in fields if field.required}
        interface(**(missing | passed([field.name for field in fields if field.artifact is None], values)))


def passed(names: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Which of a step's parameters, by name, have their values from the pipeline's."""
    pairs = [(name, ALIASES.get(name, name)) for name in names]
    return {name: values[known] for name, known in pairs if known in values}
