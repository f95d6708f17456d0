"""The objects of a kind are known as they are, whatever becomes of the connection."""

from collections.abc import Iterator

import pytest
from kubernetes import client

from components.step import UserError
from components.train.trainjob.cluster import Cluster, Refused
from components.train.trainjob.watch import Changes, Watch
from tests.components.train.trainjob.cluster import MAIN, NAMESPACE, until
from tests.servers.kubernetes import FakeKubernetes


@pytest.fixture
def cluster(server: FakeKubernetes) -> Iterator[Cluster]:
    configuration = client.Configuration(host=server.url)
    configuration.retries = False
    with client.ApiClient(configuration) as api:
        yield Cluster(api, NAMESPACE)


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[Watch]:
    """A watch of the pods with the label `team=red`; it has begun."""
    watch = Watch(cluster, "pods", Changes(), labelSelector="team=red")
    watch.start()
    until(lambda: watch.objects is not None)
    yield watch
    watch.end()


def add(server: FakeKubernetes, name: str, team: str = "red") -> None:
    spec = {"containers": [{"name": "node", "image": "i"}]}
    server.add("pods", name, NAMESPACE, metadata={"labels": {"team": team}}, spec=spec)


def names(watch: Watch) -> set[str]:
    return set(watch.objects or {})


def test_what_is_added_changed_and_removed_is_known(server: FakeKubernetes, watch: Watch) -> None:
    assert watch.objects == {}
    add(server, "a")
    add(server, "b")
    add(server, "c", team="blue")
    until(lambda: names(watch) == {"a", "b"})
    server.change("pods", NAMESPACE, "a", lambda pod: pod.update(status={"phase": "Running"}))
    until(lambda: (watch.objects or {})["a"].get("status") == {"phase": "Running"})
    server.remove("pods", NAMESPACE, "b")
    until(lambda: names(watch) == {"a"})


@pytest.mark.slow
def test_what_happens_while_the_connection_is_broken_is_known_too(server: FakeKubernetes, watch: Watch) -> None:
    add(server, "a")
    until(lambda: names(watch) == {"a"})
    server.fail(503, times=2)
    server.hang_up()
    server.remove("pods", NAMESPACE, "a")
    add(server, "b")
    until(lambda: names(watch) == {"b"})


@pytest.mark.slow
def test_a_watch_that_expires_while_it_lasts_lists_anew(server: FakeKubernetes, watch: Watch) -> None:
    add(server, "a")
    server.forget()
    add(server, "b")
    until(lambda: names(watch) == {"a", "b"})


def test_a_version_that_has_expired_already_ends_a_watch_quietly(server: FakeKubernetes, cluster: Cluster) -> None:
    server.forget()
    assert Watch(cluster, "pods", Changes())._follow("1") is False
    assert server.log[-1].status == 410


def test_what_ends_a_watch_is_told(server: FakeKubernetes, cluster: Cluster) -> None:
    server.denied.add(("", "pods", "watch"))
    watch = Watch(cluster, "pods", Changes())
    watch.start()
    until(lambda: isinstance(watch.changes.get(timeout=10), UserError))


def test_a_resource_that_is_not_there_is_told(server: FakeKubernetes, cluster: Cluster) -> None:
    server.trainer = None
    watch = Watch(cluster, "trainjobs", Changes())
    watch.start()
    until(lambda: isinstance(watch.changes.get(timeout=10), Refused))


def test_an_object_whose_pod_is_another_teams_is_not_seen(server: FakeKubernetes, watch: Watch) -> None:
    add(server, "x", team="blue")
    add(server, "y")
    until(lambda: names(watch) == {"y"})
    assert MAIN not in names(watch)
