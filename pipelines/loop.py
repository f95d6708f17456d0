"""Loops of the compiled pipeline on this machine: the iterations run at once, one a core.

kfp.local runs two at once, however many cores there are; looks for a loop's items among the pipeline's parameters;
gives the iterations the item in place of every output of an earlier step; and cannot be interrupted. So `iterate` takes
the place of its `_run_parallel_for_task`, private API of the pinned kfp.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import TYPE_CHECKING, Any

from kfp.compiler.pipeline_spec_builder import to_protobuf_value
from kfp.local.orchestrator.enhanced_dag_orchestrator import execute_task
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.status import Status
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineTaskSpec

from components.loader.machine import cores
from pipelines.interrupts import held_back

if TYPE_CHECKING:
    from pipelines.local import StepRun


def iterate(
    steps: "Sequence[StepRun]",
    *,
    task_name: str,
    task_spec: PipelineTaskSpec,
    io_store: Any,
    parallel_executor: Any,
    **context: Any,
) -> bool:
    """Runs a loop to its end and says whether it failed; when an iteration fails, the others are stopped.

    `steps` has what the iterations start. An interrupt stops them all before it goes on.
    """
    inputs = OrchestratorUtils.make_task_arguments(task_spec.inputs, io_store)
    items = inputs[task_spec.parameter_iterator.items.input_parameter]
    running: list[Future[Any]] = []
    with ThreadPoolExecutor(cores()) as pool:
        try:
            with held_back():
                for number, item in enumerate(items, start=1):
                    name = f"{task_name}-iteration-{number}-of-{len(items)}" if len(items) > 1 else task_name
                    spec = iteration(task_spec, inputs | {task_spec.parameter_iterator.item_input: item})
                    task = {"task_name": name, "task_spec": spec, "io_store": io_store} | context
                    running.append(pool.submit(execute_task, **task))
            return any(future.result()[1] == Status.FAILURE for future in as_completed(running))
        finally:
            with held_back():  # a second Ctrl-C must not leave a worker that was not told yet
                halt(steps, running)


def iteration(task_spec: PipelineTaskSpec, inputs: Mapping[str, Any]) -> PipelineTaskSpec:
    """The task of one iteration: that of the loop with all its inputs as constants."""
    spec = PipelineTaskSpec()
    spec.CopyFrom(task_spec)
    spec.ClearField("parameter_iterator")
    for name, value in inputs.items():
        spec.inputs.parameters[name].runtime_value.constant.CopyFrom(to_protobuf_value(value))
    return spec


def halt(steps: "Sequence[StepRun]", running: "Sequence[Future[Any]]") -> None:
    """Stops what still runs, all at once, and waits for its end; what has not begun never will."""
    begun = [future for future in running if not future.cancel()]
    with ThreadPoolExecutor(max(1, len(begun))) as stopping:
        while wait(begun, timeout=0.1).not_done:
            for step in steps:
                # The code first: a step that is started again loses it last.
                if step.code is None and step.stop and not step.stopped:
                    step.stopped = True
                    stopping.submit(step.stop)
