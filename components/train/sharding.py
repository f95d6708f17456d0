"""Networks whose weights, gradients and averages are dealt to the ranks: FSDP2, for what no single GPU can hold.

A rank holds its part of each tensor, and has a whole block only while it computes it (Zhao et al., 2023;
docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from components.models.artifact import Classifier
from components.train.ranks import Ranks

BLOCKS = 16
"""A block has about one in so many of the parameters: so much more than its part is what a rank has at once."""


def shard(classifier: Classifier, ranks: Ranks) -> Classifier:
    """Deals a classifier to the ranks, in place: its parameters become DTensors, its layers keep their names."""
    classifier.to(memory_format=torch.contiguous_format)  # FSDP takes no other
    mesh = init_device_mesh(classifier.scale.device.type, (ranks.ranks,))
    for block in blocks(classifier.network, parameters(classifier) // BLOCKS):
        fully_shard(block, mesh=mesh)
    # What is in no block; after a forward pass it would stay whole, in wait for a backward one.
    fully_shard(classifier, mesh=mesh, reshard_after_forward=True)
    return classifier


def blocks(module: nn.Module, most: int) -> Iterator[nn.Module]:
    """Parts of a network that have at most so many parameters, or most of them in layers of their own.

    Single layers are none: some are never called, but read by what they are in.
    """
    for child in module.children():
        divisible = [below for below in child.children() if any(below.children())]
        called = type(child).forward is not nn.Module.forward  # a list of modules is not
        few = parameters(child) <= most or 2 * sum(map(parameters, divisible)) < parameters(child)
        if called and few and any(child.children()) and parameters(child):
            yield child
        else:
            yield from blocks(child, most)


def parameters(module: nn.Module) -> int:
    """How many numbers there are to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def whole(state: Any, ranks: Ranks) -> Any:
    """The same dicts and lists on rank 0 with whole tensors, in memory; on the others these are empty."""
    if isinstance(state, dict):
        return {key: whole(value, ranks) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value, ranks) for value in state]
    if isinstance(state, DTensor):
        gathered = state.full_tensor()
        return gathered.cpu() if ranks.first else torch.empty(0)
    return state


def part(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor that every rank has: as it has of `like`, a DTensor."""
    assert isinstance(like, DTensor)
    # None: each takes its own from what it has.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
