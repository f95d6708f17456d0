"""Nodes that really run the workers of a TrainJob: a torchrun each, on loopback, with what the TrainJob says."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.components.train.trainjob.cluster import NAMESPACE, Controller
from tests.servers.kubernetes import Object

ROOT = Path(__file__).parents[4]


class Nodes(threading.Thread):
    """Trainer, JobSet, Job and the kubelets together, for one TrainJob at a time.

    `secrets` has the values of the cluster's secrets, by secret and key.
    """

    def __init__(self, controller: Controller, secrets: dict[tuple[str, str], str]) -> None:
        super().__init__(daemon=True)
        self.controller, self.secrets = controller, secrets
        controller.server.lingering = True  # until the processes are gone
        self.processes: list[subprocess.Popen[str]] = []
        self.closed = False
        self.collecting = threading.Lock()
        """Or a worker would end whose pod is just being removed."""

    def __enter__(self) -> "Nodes":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True
        self.join()
        self.kill()

    def run(self) -> None:
        while not self.closed:
            time.sleep(0.02)
            if not self.controller.made:
                continue
            if "deletionTimestamp" in self.controller.job["metadata"]:
                self.kill()
                with self.collecting:
                    self.controller.server.collect(NAMESPACE, self.controller.name)
            elif not self.processes:
                self.begin(self.controller.job["spec"]["trainer"])

    def begin(self, trainer: Object) -> None:
        """Starts the workers."""
        port = free_port()
        for number in range(trainer["numNodes"]):
            self.controller.start(number)
            environment = self.environment(trainer["env"]) | torchrun(trainer, number, port)
            process = subprocess.Popen(
                [*program(trainer["command"]), *trainer["args"]],
                cwd="/",
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes.append(process)
            threading.Thread(target=self.watch, args=(number, process), daemon=True).start()

    def watch(self, number: int, process: "subprocess.Popen[str]") -> None:
        """Passes on what a worker prints, and how it ends."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.controller.say(number, line.rstrip("\n"))
        code = process.wait()
        code = 128 - code if code < 0 else code
        with self.collecting:
            if (NAMESPACE, self.controller.pod(number)) in self.controller.server.objects["pods"]:
                self.controller.end(number, code)
                if self.processes and all(each.poll() == 0 for each in self.processes):
                    self.controller.set_condition("Complete")

    def environment(self, variables: list[Object]) -> dict[str, str]:
        """That of the image, and of the TrainJob."""
        image = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/tmp", "GLOO_SOCKET_IFNAME": "lo"}
        references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in variables if "valueFrom" in each}
        values = {each["name"]: each["value"] for each in variables if "value" in each}
        return image | values | {name: self.secrets[of["name"], of["key"]] for name, of in references.items()}

    def kill(self) -> None:
        """Ends the workers at once."""
        for process in self.processes:
            kill(process)
        self.processes = []


def torchrun(trainer: Object, number: int, port: int) -> dict[str, str]:
    """What the runtime's plugin tells a worker of a number (kubeflow/trainer v2.3.0, plugins/torch/torch.go)."""
    return {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_NODE_RANK": str(number),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }


def kill(process: "subprocess.Popen[str]") -> None:
    """Ends a worker as a container ends: with all its processes, those too to which torchrun gave their own session."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def family(pid: int) -> list[int]:
    """A process and those that came of it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:  # which grows meanwhile
        found += [child for child, of in parents.items() if of == parent]
    return found


def program(command: list[str]) -> list[str]:
    """A command of the image, with the programs of this environment."""
    assert command[0] == "torchrun"
    return [sys.executable, "-m", "torch.distributed.run", *command[1:]]


def free_port() -> int:
    """Of those that nobody gets who asks for any: it is bound seconds later."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
