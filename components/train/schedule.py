"""How the learning rate goes from batch to batch."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from components.train.recipe import Recipe

DROPS = 3
"""Parts of a training in `step`, each with a tenth of the learning rate of the one before."""


def schedule(optimizer: Optimizer, recipe: Recipe, batches: int, epochs: int) -> LRScheduler:
    """The recipe's schedule over so many batches in all; each group of the optimizer has its peak as learning rate."""
    if recipe.schedule == "one_cycle":
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        cycled = "betas" in optimizer.defaults  # not the momentum of SGD, which the recipe says
        return OneCycleLR(optimizer, peaks, total_steps=batches + 1, cycle_momentum=cycled)
    warm = min(recipe.warmup / epochs, 1) * batches
    return LambdaLR(optimizer, lambda batch: factor(recipe.schedule, batch, warm, batches))


def factor(name: str, batch: int, warm: float, batches: int) -> float:
    """The share of its peak that the learning rate has at a batch, `warm` being those in which it rises."""
    if batch < warm:
        return (batch + 1) / (warm + 1)
    done = min(1.0, (batch - warm) / max(1.0, batches - warm))
    if name == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return float(0.1 ** min(DROPS - 1, int(done * DROPS))) if name == "step" else 1.0
