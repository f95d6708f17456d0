"""What a training on many nodes needs of a cluster."""

from collections.abc import Mapping, Sequence

RUNTIME = "torch-distributed"
"""The ClusterTrainingRuntime that Kubeflow Trainer ships for PyTorch."""

RIGHTS: Mapping[tuple[str, str], Sequence[str]] = {
    ("trainer.kubeflow.org", "trainjobs"): ("create", "get", "list", "watch", "patch", "delete"),
    ("", "pods"): ("get", "list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
}
"""The verbs that the step's service account has in its namespace, by group and resource.

Without `patch` and the last two a training works, but a TrainJob that is found again goes with the pod that made it, no
log is shown, and nobody says why workers have no pod.
"""
