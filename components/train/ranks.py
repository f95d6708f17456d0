"""The processes of one training: torchrun starts them and tells each its rank; alone, a process is rank 0 of 1."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


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
        if self.ranks == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=_talk())
        summed: list[float] = tensor.tolist()
        return summed

    def everywhere(self, here: bool) -> bool:
        """Whether something is so on every rank."""
        return self.sum([float(not here)])[0] == 0

    def anywhere(self, here: bool) -> bool:
        """Whether something is so on a rank."""
        return self.sum([float(here)])[0] > 0

    def tell(self, value: object) -> object:
        """What rank 0 has to say."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_talk())
        return box[0]


ALONE = Ranks()


def world() -> tuple[int, int]:
    """Rank and ranks, as torchrun tells them in the environment; (0, 1) where it did not start this process."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(gpu: bool) -> Iterator[Ranks]:
    """Waits for the others; what is multiplied goes through NCCL on GPUs and Gloo on processors."""
    rank, ranks = world()
    if ranks == 1:
        yield ALONE
        return
    here = Ranks(rank, ranks, int(os.environ["LOCAL_RANK"]))
    if gpu:
        torch.cuda.set_device(here.local_rank)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield here
    finally:
        _groups.clear()
        dist.destroy_process_group()


_groups: list[Any] = []


def _talk() -> Any:
    """The group for small numbers that lie in memory, whatever the gradients go through."""
    if not _groups:
        _groups.append(dist.new_group(backend="gloo"))
    return _groups[0]
