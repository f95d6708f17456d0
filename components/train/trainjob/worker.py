"""A worker: one process of the training, which torchrun starts with its RANK and WORLD_SIZE."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from components.step import Metadata
from components.storage import open_store
from components.train.trainjob.exchange import deliver, receive


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of a training on many nodes: reads the step from the store, trains; the first writes the result."""

    store: Annotated[str, "Where the training is, and where its result goes."]
    training: Annotated[str, "The training's identity."]


def work(worker: Worker) -> Metadata:
    """Trains as the launching step would have; the process of rank 0 delivers what came of it."""
    from components.train.train import train

    store = open_store(worker.store)
    with TemporaryDirectory(prefix="training-") as room:
        step = receive(store, worker.training, Path(room))
        train(step, lambda metadata: deliver(step, store, worker.training, metadata))
    return {}
