"""What may talk to what, by Kubernetes' own rules for network policies."""

from dataclasses import dataclass, field

import pytest

from components.train.trainjob import resource
from tests.manifests.rendered import OVERLAYS, Object, component, of_kind, overlay, pod_templates

RUN = {"pipelines.kubeflow.org/v2_component": "true"}
"""On every pod of a run (kubeflow/pipelines 2.17.0, backend/src/v2/compiler/argocompiler/argo.go)."""


WORKER = resource.WORKER
"""On every worker of a training on many nodes."""


@dataclass(frozen=True)
class Pod:
    """A pod as a network policy sees it."""

    namespace: str
    labels: dict[str, str]
    ports: tuple[tuple[str, int], ...] = ()


@dataclass
class World:
    """The pods and the policies of a cluster."""

    policies: list[Object]
    pods: dict[str, Pod] = field(default_factory=dict)

    def allows(self, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection gets out of the source and into the target."""
        out = self._allows(self.pods[source], self.pods[target], "Egress", port, protocol)
        return out and self._allows(self.pods[target], self.pods[source], "Ingress", port, protocol)

    def _allows(self, pod: Pod, peer: Pod, direction: str, port: int, protocol: str) -> bool:
        selecting = [policy for policy in self.policies if _selects(policy, pod, direction)]
        rules = [rule for policy in selecting for rule in policy["spec"].get(direction.lower(), [])]
        return not selecting or any(_permits(rule, pod, peer, port, protocol) for rule in rules)


def _selects(policy: Object, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    here = policy["metadata"].get("namespace", pod.namespace) == pod.namespace
    return here and direction in spec["policyTypes"] and _matches(spec["podSelector"], pod.labels)


def _permits(rule: Object, pod: Pod, peer: Pod, port: int, protocol: str) -> bool:
    ports = [(each.get("protocol", "TCP"), each["port"]) for each in rule.get("ports", [])]
    peers = rule.get("to", rule.get("from"))
    return (not ports or (protocol, port) in ports) and (peers is None or any(_is(each, pod, peer) for each in peers))


def _is(selector: Object, pod: Pod, peer: Pod) -> bool:
    if "namespaceSelector" in selector:
        here = _matches(selector["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
    else:
        here = peer.namespace == pod.namespace
    return here and _matches(selector["podSelector"], peer.labels)


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


KUBEFLOW = {
    "ml-pipeline": Pod("kubeflow", {"app": "ml-pipeline"}, (("TCP", 8887), ("TCP", 8888))),
    "metadata": Pod("kubeflow", {"component": "metadata-grpc-server"}, (("TCP", 8080),)),
    "seaweedfs": Pod("kubeflow", {"app": "seaweedfs"}, (("TCP", 8333), ("TCP", 9333))),
    "mysql": Pod("kubeflow", {"app": "mysql"}, (("TCP", 3306),)),
    "dns": Pod("kube-system", {"k8s-app": "kube-dns"}, (("UDP", 53), ("TCP", 53))),
    "internet": Pod("", {}, (("TCP", 443), ("TCP", 6443), ("TCP", 80))),
}
"""Labels and ports: pods of kubeflow/pipelines 2.17.0 (manifests/kustomize/base), of kubeadm's DNS, and beyond."""


def world(name: str) -> World:
    """A cluster with an overlay, the MinIO component, two pods of runs, two workers of a training and a pod of CI."""
    objects = [*overlay(name), *component("minio")]
    [namespace] = of_kind(overlay(name), "Namespace")
    [minio] = pod_templates(of_kind(component("minio"), "Deployment")["retrain-minio"])
    ours = {
        "run": Pod(namespace, RUN),
        "other run": Pod(namespace, RUN, (("TCP", 8080),)),
        "worker": Pod(namespace, WORKER),
        "other worker": Pod(namespace, WORKER, (("TCP", 29500), ("TCP", 41234))),
        "ci": Pod(namespace, {"app.kubernetes.io/name": "retrain-ci"}),
        "minio": Pod(namespace, minio["metadata"]["labels"], (("TCP", 9000),)),
    }
    return World([found for found in objects if found["kind"] == "NetworkPolicy"], KUBEFLOW | ours)


REACHED = {
    "run": {
        ("ml-pipeline", "TCP", 8887),
        ("metadata", "TCP", 8080),
        ("seaweedfs", "TCP", 8333),
        ("minio", "TCP", 9000),
        ("dns", "UDP", 53),
        ("dns", "TCP", 53),
        ("internet", "TCP", 443),
        ("internet", "TCP", 6443),
    },
    "worker": {
        ("other worker", "TCP", 29500),
        ("other worker", "TCP", 41234),
        ("seaweedfs", "TCP", 8333),
        ("minio", "TCP", 9000),
        ("dns", "UDP", 53),
        ("dns", "TCP", 53),
        ("internet", "TCP", 443),
    },
    "ci": {
        ("ml-pipeline", "TCP", 8888),
        ("seaweedfs", "TCP", 8333),
        ("minio", "TCP", 9000),
        ("dns", "UDP", 53),
        ("dns", "TCP", 53),
        ("internet", "TCP", 443),
    },
    "minio": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("source", REACHED)
def test_a_role_reaches_what_it_needs_and_nothing_else(name: str, source: str) -> None:
    cluster = world(name)
    open_ports = [(pod, protocol, port) for pod, found in cluster.pods.items() for protocol, port in found.ports]
    reached = {each for each in open_ports if cluster.allows(source, each[0], each[2], each[1])}
    assert reached == REACHED[source]


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_reaches_the_pods_of_a_run(name: str) -> None:
    cluster = world(name)
    assert [source for source in cluster.pods if cluster.allows(source, "other run", 8080)] == []


@pytest.mark.parametrize("name", ["kubeflow", "production"])
def test_a_pod_without_a_role_talks_to_nobody(name: str) -> None:
    cluster = world(name)
    cluster.pods["stranger"] = Pod("retrain", {"app": "stranger"}, (("TCP", 80),))
    assert not any(cluster.allows("stranger", pod, port) for pod, found in KUBEFLOW.items() for _, port in found.ports)
    assert not cluster.allows("run", "stranger", 80)


def test_standalone_kubeflow_pipelines_keeps_talking() -> None:
    cluster = world("kind")
    assert cluster.allows("ml-pipeline", "mysql", 3306)
    assert cluster.allows("ml-pipeline", "seaweedfs", 8333)
    assert cluster.allows("metadata", "mysql", 3306)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_selector_of_a_policy_matches_a_pod(name: str) -> None:
    cluster = world(name)
    for policy in cluster.policies:
        assert any(_matches(policy["spec"]["podSelector"], pod.labels) for pod in cluster.pods.values())
        for direction, side in (("egress", "to"), ("ingress", "from")):
            for peer in [peer for rule in policy["spec"].get(direction, []) for peer in rule.get(side, [])]:
                assert any(_is(peer, cluster.pods["run"], pod) for pod in cluster.pods.values()), peer
