"""The pipeline: ingest, train, evaluate, export."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.storage import aside
from pipelines.kfp_component import component, declared
from pipelines.parameters import STEPS, parameters

ingest, train, evaluate, export = map(component, STEPS)


def retrain(**given: Any) -> None:
    """Retrains an image classifier: ingests images, trains, judges against the champion, exports and publishes."""
    dataset = task(ingest, given, "Ingest").outputs["dataset"]
    model = task(train, given, "Train", dataset=dataset).outputs["model"]
    judged = task(evaluate, given, "Evaluate", dataset=dataset, model=model).outputs
    task(export, given, "Export", dataset=dataset, model=model, verdict=judged["verdict"], report=judged["report"])


def task(component: Any, given: dict[str, Any], name: str, **artifacts: Any) -> Any:
    """A step of the DAG: each of its parameters from the pipeline's parameter of that name, or from its default."""
    named = {parameter: given[parameter] for parameter in component.component_spec.inputs if parameter in given}
    # KFP's cache compares URIs. What a step reads behind them, new images or a new champion, it does not see; ingest
    # does, and reuses what is in the store already.
    return component(**named, **artifacts).set_display_name(name).set_caching_options(False)


pipeline = dsl.pipeline(name="retrain")(declared(retrain, parameters()))


def compile(path: Path) -> None:
    """Writes the pipeline as YAML, the same bytes on every machine."""
    with aside(path) as copy:
        compiler.Compiler().compile(pipeline, str(copy))
