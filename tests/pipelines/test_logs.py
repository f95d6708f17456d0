"""What a step printed: from its pods while they are there, from Kubeflow's archive afterwards."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.step import StepError, UserError
from pipelines.kubeflow import Kubeflow
from pipelines.logs import read
from pipelines.transport import Connection
from tests.commands import retrain
from tests.pipelines.conftest import use_kubeconfig
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes
from tests.servers.loopback import Reply, Request

NODE = "retrain-x7k.root.condition-1.train.executor"


class Archive(FakeKubeflow):
    """With the handler of archived logs, which answers 200 whatever happens (run_log_server.go)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.archived: dict[tuple[str, str], str] = {}

    def answer(self, request: Request) -> Reply:
        parts = request.path.split("/")
        if parts[2:4] != ["v1alpha1", "runs"]:
            return super().answer(request)
        log = self.archived.get((parts[4], parts[6]))
        return Reply(200, '{"error_message":"Failed to read logs for run"}' if log is None else log)


@pytest.fixture
def kubeflow_server() -> Iterator[Archive]:
    with Archive() as server:
        yield server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.logs.PAUSE_SECONDS", 0.01)


def add_run(server: FakeKubeflow, **tasks: str) -> str:
    """A run whose tasks are in these states; the child of `train` is node `retrain-x7k-77`."""
    run = server.add_run(run_id="r")
    server.tasks("r", tasks)
    for detail in run["run_details"]["task_details"]:
        if detail["display_name"] == "train":
            detail["child_tasks"] = [{"pod_name": "retrain-x7k-77"}]
    return "r"


def lines(client: Kubeflow, step: str = "train", follow: bool = False) -> list[str]:
    return list(read(client, "r", step, kfp_namespace="kubeflow", follow=follow))


def test_the_log_is_that_of_the_newest_attempt(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, ingest="SUCCEEDED", train="SUCCEEDED")
    add = kubernetes_server.add_pod
    add("kubeflow", "first", "r", f"{NODE}(0)", "epoch 1\nout of memory\n")
    add("kubeflow", "second", "r", f"{NODE}(10)", "epoch 1\nepoch 2")
    add("kubeflow", "third", "r", f"{NODE}(9)", "no")
    add("kubeflow", "driver", "r", "retrain-x7k.root.condition-1.train-driver", "I0501 driver")
    add("kubeflow", "other-step", "r", "retrain-x7k.root.ingest.executor", "ingesting")
    add("kubeflow", "other-run", "s", NODE, "another run")
    assert lines(kubeflow) == ["epoch 1", "epoch 2"]
    assert lines(kubeflow, "ingest") == ["ingesting"]


SHARD = "retrain-x7k.root.for-loop-1.iteration-iterations({0}:{0}).iteration-item.shard.executor"


def test_the_log_of_a_step_in_a_loop_is_that_of_all_its_parts_or_of_one(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    kubeflow_server.add_run(run_id="r")
    kubeflow_server.tasks("r", {"plan": "SUCCEEDED", "shard": ["SUCCEEDED"] * 10 + ["RUNNING", ""]})
    for number in reversed(range(10)):
        for attempt in range(2):
            node = f"{SHARD.format(number)}({attempt})"
            kubernetes_server.add_pod("kubeflow", f"p{number}-{attempt}", "r", node, f"{number} in attempt {attempt}\n")
    assert lines(kubeflow, "shard") == [f"shard/{n + 1}  {n} in attempt 1" for n in range(10)]
    assert lines(kubeflow, "shard/1") == ["0 in attempt 1"]
    assert lines(kubeflow, "shard/10") == ["9 in attempt 1"]
    with pytest.raises(UserError, match="shard/11 has not started in run r: it has no pod yet"):
        lines(kubeflow, "shard/11")
    with pytest.raises(UserError, match="shard had 12 parts in run r, shard/1 to shard/12, not 'shard/13'"):
        lines(kubeflow, "shard/13")
    with pytest.raises(UserError, match="shard has 12 parts that run at once; follow one of them, such as shard/1"):
        lines(kubeflow, "shard", follow=True)


def test_a_part_may_wait_longer_for_its_pod_than_a_step(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.logs.POD_SECONDS", -1)
    kubeflow_server.add_run(run_id="r")
    kubeflow_server.tasks("r", {"plan": "SUCCEEDED", "shard": ["RUNNING", ""]})
    with pytest.raises(UserError, match="shard/2 has not started in run r: it has no pod yet"):
        lines(kubeflow, "shard/2")


def test_of_parts_that_have_no_pods_any_more_the_archive_has_all_the_logs(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    run = kubeflow_server.add_run(run_id="r")
    kubeflow_server.tasks("r", {"shard": ["SUCCEEDED", "SUCCEEDED"]})
    nodes = [detail for detail in run["run_details"]["task_details"] if detail["display_name"] == "shard"]
    for number, detail in enumerate(nodes):
        detail["child_tasks"] = [{"pod_name": f"node-{number}"}]
        kubeflow_server.archived["r", f"node-{number}"] = f"archived {number}\n"
    kubeflow_server.finish("r", "SUCCEEDED")
    assert lines(kubeflow, "shard") == ["archived 0", "archived 1"]
    alone = "the log of shard/1 in run r cannot be had: its pod is gone, .* not tell the parts apart; ask for shard"
    with pytest.raises(StepError, match=alone):
        lines(kubeflow, "shard/1")


def test_letters_that_are_none_are_shown_all_the_same(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "größe 1\n" * 40_000)
    assert set(lines(kubeflow)) == {"größe 1"}
    assert len(lines(kubeflow)) == 40_000


def test_following_shows_lines_as_they_come_and_the_attempts_that_come_later(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="RUNNING")
    pod = kubernetes_server.add_pod("kubeflow", "p0", "r", f"{NODE}(0)", "one\n")
    (status,) = pod["status"]["containerStatuses"]
    status["state"] = {"running": {}}
    seen = read(kubeflow, "r", "train", kfp_namespace="kubeflow", follow=True)
    assert next(seen) == "one"
    kubernetes_server.logs["kubeflow", "p0"] += "two\n"
    assert next(seen) == "two"
    kubernetes_server.add_pod("kubeflow", "p1", "r", f"{NODE}(1)", "again\n")
    status["state"] = {"terminated": {"exitCode": 1}}
    assert next(seen) == "again"
    kubeflow_server.finish("r", "SUCCEEDED")
    assert list(seen) == []


def test_following_waits_for_a_step_that_has_not_begun(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, ingest="RUNNING")

    def begin() -> None:
        time.sleep(0.2)
        kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "one\n")
        kubeflow_server.tasks("r", {"ingest": "SUCCEEDED", "train": "SUCCEEDED"})

    thread = threading.Thread(target=begin)
    thread.start()
    assert lines(kubeflow, follow=True) == ["one"]
    thread.join()


@pytest.mark.parametrize("breaks", [True, False])
def test_a_stream_that_ends_before_the_step_goes_on_where_it_stopped(
    breaks: bool, kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    pod = kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "one\ntwo\nthree\n")
    (status,) = pod["status"]["containerStatuses"]
    ended, status["state"] = status["state"], {"running": {}}
    follow = kubernetes_server.follow

    def follow_a_little(key: tuple[str, str]) -> Iterator[str]:
        kubernetes_server.follow = follow  # type: ignore[method-assign]
        status["state"] = ended
        yield "one\ntw" if breaks else "one\n"
        if breaks:
            raise ConnectionResetError

    kubernetes_server.follow = follow_a_little  # type: ignore[method-assign]
    assert lines(kubeflow, follow=True) == ["one", "two", "three"]


@pytest.mark.parametrize("silent", ["kubeflow", "kubernetes"])
def test_following_survives_that_nobody_answers_for_a_while(
    silent: str, kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="RUNNING")
    pod = kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "one\n")
    (status,) = pod["status"]["containerStatuses"]
    ended, status["state"] = status["state"], {"running": {}}
    seen = read(kubeflow, "r", "train", kfp_namespace="kubeflow", follow=True)
    assert next(seen) == "one"
    kubernetes_server.logs["kubeflow", "p"] += "two\n"
    status["state"] = ended
    if silent == "kubeflow":
        kubeflow_server.fail(503, "the server is being upgraded", times=10)
    else:
        kubernetes_server.fail(503, "the server is being upgraded", times=10)
    assert next(seen) == "two"
    kubeflow_server.finish("r", "SUCCEEDED")
    assert list(seen) == []


@pytest.mark.parametrize("follow", [False, True])
def test_a_step_that_runs_in_another_cluster_than_the_kubeconfigs_is_not_waited_for(
    follow: bool,
    kubeflow: Kubeflow,
    kubeflow_server: Archive,
    kubernetes_server: FakeKubernetes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.logs.POD_SECONDS", -1)
    add_run(kubeflow_server, train="RUNNING")
    elsewhere = "it has no pod in namespace 'kubeflow' of the kubeconfig's cluster; if .* name it with --context"
    with pytest.raises(StepError, match=elsewhere):
        lines(kubeflow, follow=follow)


def test_a_step_that_waits_says_for_what(
    kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="RUNNING")
    with pytest.raises(UserError, match="train has not started in run r: it has no pod yet; --follow waits for it"):
        lines(kubeflow)
    pod = kubernetes_server.add_pod("kubeflow", "p", "r", NODE)
    with pytest.raises(UserError, match="train has not started in run r: ContainerCreating"):
        lines(kubeflow)
    (status,) = pod["status"]["containerStatuses"]
    status["state"]["waiting"] = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "retrain:none"'}
    with pytest.raises(UserError, match='ImagePullBackOff: Back-off pulling image "retrain:none"'):
        lines(kubeflow)
    unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
    pod["status"] = {"phase": "Pending", "conditions": [condition]}
    with pytest.raises(UserError, match=f"no node takes it: {unschedulable}"):
        lines(kubeflow)


def test_a_step_that_was_skipped_printed_nothing(kubeflow: Kubeflow, kubeflow_server: Archive) -> None:
    add_run(kubeflow_server, ingest="SUCCEEDED")
    kubeflow_server.finish("r", "SUCCEEDED")
    with pytest.raises(UserError, match="train was skipped in run r; it printed nothing"):
        lines(kubeflow)


def test_an_unknown_step_or_run_is_named(kubeflow: Kubeflow, kubeflow_server: Archive) -> None:
    with pytest.raises(UserError, match="there is no run 'r'"):
        lines(kubeflow)
    add_run(kubeflow_server, train="SUCCEEDED")
    with pytest.raises(UserError, match="unknown step 'trian'; did you mean 'train'"):
        lines(kubeflow, "trian")


@pytest.mark.parametrize(
    "way", ["the pod is gone", "no kubeconfig", "a broken kubeconfig", "no rights", "expired", "unreachable"]
)
@pytest.mark.parametrize("follow", [False, True])
def test_where_there_is_no_pod_the_archive_has_the_log(
    way: str,
    follow: bool,
    kubeflow: Kubeflow,
    kubeflow_server: Archive,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    kubeflow_server.finish("r", "SUCCEEDED")
    kubeflow_server.archived["r", "retrain-x7k-77"] = "archived 1\narchived 2\n"
    if way == "a broken kubeconfig":
        (tmp_path / "broken").write_text("{]")
        use_kubeconfig(monkeypatch, tmp_path / "broken")
    elif way != "no kubeconfig":
        cluster = request.getfixturevalue("kubernetes_server")
        if way == "no rights":
            cluster.denied.add(("", "pods", "list"))
        if way == "expired":
            cluster.tokens.add("another")
        if way == "unreachable":
            cluster.drop("before", times=1000)
    assert lines(kubeflow, follow=follow) == ["archived 1", "archived 2"]


@pytest.mark.parametrize(
    ("status", "content"),
    [(200, '{"error_message":"Failed to read logs"}'), (404, "Not Found"), (403, "no"), (200, "<html>login</html>")],
)
def test_where_both_are_gone_it_is_said_in_one_sentence(
    status: int, content: str, kubeflow: Kubeflow, kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    kubeflow_server.fail(status, content, path="v1alpha1")
    with pytest.raises(StepError) as error:
        lines(kubeflow)
    assert str(error.value) == (
        "the log of train in run r cannot be had: its pod is gone, and Kubeflow Pipelines has none in its archive"
    )


def test_with_several_users_the_pods_are_in_the_users_namespace(kubernetes_server: FakeKubernetes) -> None:
    with Archive(multi_user=True) as server:
        server.tokens["t"] = "ann"
        server.grant("ann", "team", "runs", "get")
        experiment = server.add_experiment("retrain", "team")
        server.add_run(run_id="r", experiment_id=experiment["experiment_id"])
        server.tasks("r", {"train": "SUCCEEDED"})
        kubernetes_server.add_pod("team", "p", "r", NODE, "mine\n")
        kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "not mine\n")
        assert lines(Kubeflow(Connection(host=server.url, namespace="team", token=lambda: "t"))) == ["mine"]


def test_with_one_user_they_are_where_kubeflow_pipelines_is(
    kubeflow_server: Archive, kubernetes_server: FakeKubernetes
) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    kubernetes_server.add_pod("kubeflow", "p", "r", NODE, "mine\n")
    assert lines(Kubeflow(Connection(host=kubeflow_server.url, namespace="ci"))) == ["mine"]


@pytest.mark.slow
def test_logs_prints_the_log(kubeflow_server: Archive, kubernetes_server: FakeKubernetes, tmp_path: Path) -> None:
    add_run(kubeflow_server, train="SUCCEEDED")
    kubernetes_server.add_pod("elsewhere", "p", "r", NODE, "epoch 1\nepoch 2\n")
    flags = ["--host", kubeflow_server.url, "--kfp-namespace", "elsewhere"]
    shown = retrain("logs", "r", "train", *flags, folder=tmp_path)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "epoch 1\nepoch 2\n", "")
    context = retrain("logs", "r", "train", *flags, "--context", "nowhere", folder=tmp_path)
    assert (context.returncode, context.stdout) == (2, "")
    assert "context 'nowhere' of the kubeconfig is not usable" in context.stderr
