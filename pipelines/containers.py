"""Runs the steps of the compiled pipeline in containers, through Docker's API, which podman's socket speaks, too.

Create, start, follow, wait, and only then remove. Where the daemon removes a container by itself, as kfp's own
DockerRunner lets it, the exit code can go with it, and a failure then looks like success.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from components.step import UserError
from pipelines.interrupts import held_back
from pipelines.local import GRACE_SECONDS, StepRun, hear
from pipelines.placement import USER
from pipelines.terminal import Terminal, lines


class Containers:
    """Runs each step in a container that may write to `/tmp` and below `writable`, and to nothing else.

    Folders lie at the same path inside as outside. A loopback S3 server is reached, because the network is the host's.
    """

    def __init__(self, writable: Path, readable: Iterable[Path] = ()) -> None:
        """Raises UserError where no daemon answers, or `writable` is somebody else's."""
        with closing(connect()) as client:
            engine = client.info()
        rootless = engine.get("Rootless") or "name=rootless" in (engine.get("SecurityOptions") or [])  # podman, Docker
        # Whoever may write to the folders, but never the machine's root; that of a rootless engine's containers is the
        # user whose engine it is.
        user, group = os.getuid() or USER, os.getgid() or USER
        self.user = "0:0" if rootless else f"{user}:{group}"
        lend(writable, user)
        self.volumes = {str(folder): {"bind": str(folder), "mode": "ro"} for folder in readable}
        self.volumes[str(writable)] = {"bind": str(writable), "mode": "rw"}

    def require(self, image: str, terminal: Terminal) -> None:
        """Pulls the image unless it is here. Raises UserError where it cannot be had."""
        with closing(connect()) as client:
            try:
                client.images.get(image)
            except ImageNotFound:
                terminal.say(f"Pulling {image}")
                pull(client, image)

    def execute(self, command: list[str], variables: Mapping[str, str], step: StepRun, terminal: Terminal) -> None:
        """Runs a step's container to its end and shows what it prints; stops it when this process is told to stop."""
        try:
            with closing(connect()) as client, ExitStack() as ending:
                with held_back():
                    container = self._create(client, step.image, command, {**variables, **own_variables(terminal)})
                    ending.callback(end, container, step)
                follow(container, step, terminal)
        except (DockerException, OSError) as error:  # the connection's errors are OSErrors
            step.code, step.error = 1, f"its container failed: {reason(error)}"

    def _create(
        self, client: docker.DockerClient, image: str, command: list[str], variables: dict[str, str]
    ) -> Container:
        return client.containers.create(
            image,
            # As in a pod: the command replaces the image's entry point, the arguments its command.
            entrypoint=command[:1],
            command=command[1:],
            environment=variables,
            user=self.user,
            read_only=True,
            tmpfs={"/tmp": "exec"},  # as a pod's; torch.compile loads from there what it has compiled
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="host",
            volumes=self.volumes,
        )


def connect() -> docker.DockerClient:
    """The daemon that DOCKER_HOST names, or else Docker's own. Raises UserError where none answers."""
    try:
        return docker.from_env()  # it asks for the daemon's version
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST", "its default socket")
        way = "start Docker, or podman's socket, and name it in DOCKER_HOST"
        raise UserError(f"no Docker daemon answers at {where} ({reason(error)}); {way}") from None


def pull(client: docker.DockerClient, image: str) -> None:
    """Brings an image here. Raises UserError where it cannot be had."""
    try:
        client.images.pull(image)
    except DockerException as error:
        raise UserError(f"image {image} cannot be pulled ({reason(error)}); `make images` builds it") from None


def follow(container: Container, step: StepRun, terminal: Terminal) -> None:
    """Runs a container to its end, and shows what it prints."""
    container.start()
    step.stop = partial(stop, container)
    container.client.api.timeout = None  # podman answers with the log's first line, however long a step is silent
    with closing(container.logs(stream=True, follow=True)) as log:
        for line in lines(log):
            hear(line, step, terminal)
    step.code = container.wait(timeout=None)["StatusCode"]


def lend(folder: Path, user: int) -> None:
    """Makes sure that the containers' user can write below the folder: gives it to them if it is root's and new.

    Raises UserError where it is another user's already, because its files would have to change hands as well.
    """
    owner = folder.stat().st_uid
    if owner != user and not any(folder.iterdir()):
        os.chown(folder, user, user)
    elif owner != user:
        way = f"chown -R {user}:{user} {folder}, or give another --store"
        raise UserError(f"{folder} belongs to user {owner}, and the containers run as user {user}; {way}")


def own_variables(terminal: Terminal) -> dict[str, str]:
    """What the containers get of this process's environment: how to reach the store, nothing else."""
    store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    # An empty format: lines for people, where a pod's are for programs.
    return {"RETRAIN_PROGRESS_SECONDS": "0.5" if terminal.live else "5", "RETRAIN_LOG_FORMAT": ""} | store


def end(container: Container, step: StepRun) -> None:
    """Removes a step's container; one that runs is stopped first."""
    try:
        if step.code is None:
            stop(container)
    finally:
        container.remove(force=True)


def stop(container: Container) -> None:
    """Tells a container to stop, so that it removes what is half-written; ends it where it does not."""
    with suppress(NotFound):  # it has ended meanwhile, and is removed
        container.stop(timeout=GRACE_SECONDS)


def reason(error: Any) -> str:
    """The daemon's own words, without the request that it refused."""
    told = error.explanation if isinstance(error, APIError) and error.explanation else error
    return " ".join(str(told).split())
