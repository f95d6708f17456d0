"""The processes of one training: torchrun, or launch.py, starts them and tells each its rank; alone, one is 0 of 1."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from components.step import StepError
from components.train.processes import LOST

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    """Its number on this machine, and that of its GPU."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums over all ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def least(self, value: int) -> int:
        """The smallest of all ranks' numbers."""
        return int(self._reduced([value], dist.ReduceOp.MIN)[0])

    def average(self, tensor: torch.Tensor) -> None:
        """Makes a tensor, on whatever device, the mean of all ranks'."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.ranks)

    def everywhere(self, here: bool) -> bool:
        """Whether something is so on every rank."""
        return bool(self.least(int(here)))

    def tell(self, value: T) -> T:
        """What rank 0 has to say."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def _reduced(self, values: list[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.ranks == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, how)
        reduced: list[float] = tensor.tolist()
        return reduced


ALONE = Ranks()


def here() -> Ranks:
    """This process, as torchrun tells it in the environment; alone where it did not start it."""
    rank, ranks, local_rank = (int(os.environ.get(*each)) for each in VARIABLES)
    return Ranks(rank, ranks, local_rank)


VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Waits for the others. What lies on GPUs goes through NCCL, what lies in memory through Gloo.

    Raises StepError where one of them is gone.
    """
    if ranks.ranks == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        if device.type == "cpu":
            atexit.register(_leave)
        yield
    except RuntimeError as error:
        if "NCCL error" in str(error):
            raise StepError(f"the GPUs cannot exchange gradients: {' '.join(str(error).split())}") from None
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # Gloo has no class of its own
            raise StepError(f"{LOST} ({str(error).splitlines()[0]})") from None
        raise
    # Not where this one fails: it says why before the others see it go.
    dist.destroy_process_group()


def _leave() -> None:
    """Ends Gloo's threads, where they still run, before the interpreter ends what they use.

    Otherwise the exit code of a process that failed, and has said why, may become that of a crash.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
