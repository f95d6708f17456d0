"""Training on many nodes: a TrainJob of Kubeflow Trainer v2, made, followed and removed by the train step's own pod.

The step writes what its workers need into the store (`exchange`), asks the cluster for them (`resource`, from the
step's own pod, `origin`), shows the first one's log (`log`) and watches over them (`watch`, `workers`). Each worker
(`worker`) trains under torchrun as one node does, and the first writes the result into the store, where the step
collects it. The names `training/<identity>/…` make a restarted step find all of it again.
"""

from components.step import Metadata
from components.train.interface import Train

__all__ = ["run"]


def run(step: Train, identity: str) -> Metadata:
    """Trains on `step.nodes` nodes of the cluster that this process is a pod of, and writes the step's outputs.

    `identity` names the training: where one of that name was begun, or is done already, it is gone on with. Raises
    UserError and StepError; the TrainJob is removed however this ends.
    """
    from components.train.trainjob.launch import launch

    return launch(step, identity)
