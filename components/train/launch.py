"""Starts a process a GPU on one machine, as torchrun does, and says one sentence where one of them fails."""

import json
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from components.loader.machine import cores
from components.step import Metadata, Out, fields
from components.train.hardware import choose_device
from components.train.interface import Train
from components.train.interruption import Interruption
from components.train.processes import SETTLE_SECONDS, Process, check, send, wait, watch


def launch(step: Train, processes: int) -> Metadata:
    """Trains in so many processes on this machine; returns what the first of them says of the artifacts.

    SIGTERM is passed on to all. Where one fails, the others are ended, and its sentence is raised, as UserError or
    StepError. Raises StepError before any is started where there are not so many GPUs.
    """
    choose_device(step, 0)
    # Where they find each other; this process has it, as torchrun's agent does.
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with TemporaryDirectory(prefix="processes-") as room, Interruption() as interruption:
        said = Path(room, "said.json")
        started: list[Process] = []
        try:
            for rank in range(processes):
                heard = said if rank == 0 else None
                started.append(Process(rank, command(step, heard), variables(rank, processes, meeting.port)))
            watch(started, interruption)
        except KeyboardInterrupt:
            send(started, signal.SIGINT)
            wait(started, SETTLE_SECONDS)
            raise
        finally:
            for process in started:
                process.abandon()
        check(started, interruption.requested)
        return read(said)


def command(step: Train, said: Path | None) -> list[str]:
    """The step as a process of its own, which writes what it says of the artifacts where `said` is given."""
    flags = [f"{field.flag}={getattr(step, field.name)}" for field in fields(Train)]
    if said:
        outs = [field.name for field in fields(Train) if isinstance(field.artifact, Out)]
        artifacts: dict[str, Any] = {name: {"artifacts": [{}]} for name in outs}
        outputs = {"artifacts": artifacts, "outputFile": str(said)}
        flags.append(f"--executor-input={json.dumps({'outputs': outputs})}")
    return [sys.executable, "-m", "components.train", *flags]


def read(said: Path) -> Metadata:
    """What the process said of the artifacts."""
    artifacts = json.loads(said.read_text())["artifacts"]
    return {name: listed["artifacts"][0]["metadata"] for name, listed in artifacts.items()}


def variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment of a process, as torchrun makes it (docs.pytorch.org/docs/stable/elastic/run.html)."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    meeting = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    # Whoever has set how many threads there are, as the pipeline does, meant the step as a whole.
    given = os.environ.get("OMP_NUM_THREADS", "")
    own["OMP_NUM_THREADS"] = max(1, (int(given) if given.isdecimal() else cores()) // ranks)
    return os.environ | meeting | {name: str(value) for name, value in own.items()}
