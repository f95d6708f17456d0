"""The pipeline: plan, shards, ingest, train, evaluate, export."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.ingest.decision import RETRAIN
from components.storage import aside
from pipelines.kfp_component import component, declared
from pipelines.parameters import PIPELINE, STEPS, parameters, passed
from pipelines.placement import limits, place
from pipelines.settings import STOCK, Settings

plan, shard, ingest, train, evaluate, export = map(component, STEPS)


def pipeline(settings: Settings) -> Any:
    """The pipeline for a cluster with these settings."""

    def retrain(**given: Any) -> None:
        """Retrains an image classifier: ingests images, trains, judges against the champion, exports and publishes."""

        # KFP fills it in where it is the whole argument of a task, and nowhere else (backend/src/v2/driver/resolve.go).
        given["run_id"] = dsl.PIPELINE_JOB_ID_PLACEHOLDER

        def task(component: Any, **inputs: Any) -> Any:
            return _task(component, settings, given, inputs)

        planned = task(plan).outputs
        with dsl.ParallelFor(planned["workers"], name="workers") as worker:
            sharded = task(shard, plan=planned["plan"], worker=worker)
        ingested = task(ingest, plan=planned["plan"]).after(sharded).outputs
        dataset = ingested["dataset"]
        with dsl.If(ingested["decision"] == RETRAIN, name="retrain"):
            model = task(train, dataset=dataset).outputs["model"]
            judged = task(evaluate, dataset=dataset, model=model).outputs
            task(export, dataset=dataset, model=model, verdict=judged["verdict"], report=judged["report"])

    return dsl.pipeline(name=PIPELINE, pipeline_config=limits(settings))(declared(retrain, parameters()))


def _task(component: Any, settings: Settings, given: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """A step of the DAG: what other steps give it, and else the pipeline's parameter of that name, or the default."""
    task = component(**passed(component.component_spec.inputs, given), **inputs)
    place(task, component.name, settings, given)
    # KFP's cache compares URIs. What a step reads behind them, new images or a new champion, it does not see; the
    # ingestion does: it reuses what the store has already, and writes again what has gone from it.
    return task.set_display_name(component.name.capitalize()).set_caching_options(False)


def compile(path: Path, settings: Settings = STOCK) -> None:
    """Writes the pipeline as YAML, the same bytes on every machine."""
    with aside(path) as copy:
        compiler.Compiler().compile(pipeline(settings), str(copy))
