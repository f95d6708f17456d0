"""What fits and what pays, found by trying it on random images; the training is afterwards what it was before."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from components.models.artifact import Classifier
from components.progress import duration
from components.step import StepError
from components.train.interface import FEWEST_IMAGES
from components.train.learner import Learner

Shape = tuple[int, int, int]
"""Height, width and channels of an image."""

FREE = 0.1
"""The share of a GPU's memory that has to stay free."""
MOST_IMAGES = 1024
"""That a GPU learns from at once: more is no faster."""

STEPS = 5
"""That are timed, where they do not take longer than that:"""
STEPS_SECONDS = 5.0
COMPILE_SECONDS = 60.0
"""About what it takes to compile a network."""
COMPILE_SHARE = 0.03
"""The part of its time that a training spends at most to find out whether that pays."""
GAIN = 1.05
"""How many times as fast steps have to become: what is less may be noise, and other rounding is no gain."""


def largest_batch(classifier: Classifier, make: Callable[[], Learner], shape: Shape, most: int, reserved: int) -> int:
    """The most images, a power of two up to `most`, from which a learner can learn at once on its GPU.

    `make` makes learners of the classifier. `reserved` bytes of the GPU's memory stay free, and a tenth. Raises
    StepError where not even FEWEST_IMAGES fit.
    """
    kept = {name: value.to("cpu", copy=True) for name, value in classifier.state_dict().items()}
    device = classifier.scale.device
    largest, count = 0, FEWEST_IMAGES
    with _other_chance(device):
        while count <= most and fits(make, shape, count, reserved):
            largest, count = count, 2 * count
    torch.cuda.empty_cache()
    classifier.zero_grad()
    classifier.load_state_dict(kept)
    if not largest:
        raise StepError(
            f"not even {FEWEST_IMAGES} images of {shape[0]}x{shape[1]} fit into the memory of {device}; try a smaller "
            "--image-size, another --architecture, --recipe accumulate=2, or --recipe parallel=fsdp on more GPUs"
        )
    return largest


def fits(make: Callable[[], Learner], shape: Shape, count: int, reserved: int) -> bool:
    """Whether a learner can take steps on so many images, and leaves free what has to be."""
    try:
        learner = make()
        learner.train()
        for _ in range(2):  # in the second, all of the optimizer's state is there from the beginning
            learner.learn(*batch(learner, shape, count), count)
    except torch.OutOfMemoryError:
        return False
    if learner.device.type != "cuda":
        return True
    torch.cuda.synchronize(learner.device)
    free, total = torch.cuda.mem_get_info(learner.device)  # PyTorch has kept what these steps took at their peak
    torch.cuda.empty_cache()  # or blocks of this size would be in the way of larger ones
    return free - FREE * total >= reserved


def compile_where_it_pays(learner: Learner, wanted: str, shape: Shape, count: int, batches: int) -> tuple[bool, str]:
    """Has the network compiled if `wanted` is "on", or if it is "auto" and the steps become faster by it.

    `count` images are a batch of all ranks, of which there are `batches` to come. Returns whether it is compiled, and
    why, in a sentence; all ranks have to ask, and are told the same.
    """
    if wanted == "off":
        return False, ""
    ranks = learner.ranks
    # Gradients stay here: a rank whose compiler fails would not be there to exchange them.
    with untouched(learner), learner.alone():
        tried = (*batch(learner, shape, count // ranks.ranks), count)
        once = ranks.tell(seconds(learner, *tried, steps=1))
        steps = min(STEPS, int(STEPS_SECONDS / once))
        eager = min(once, ranks.tell(seconds(learner, *tried, steps=steps))) if steps else once
        if wanted == "auto" and eager * batches * COMPILE_SHARE < COMPILE_SECONDS:
            return False, f"not compiled: {duration(eager * batches)} of training could not make up for it"
        compiled, failure = math.inf, ""
        try:
            for size in {len(part) for part in learner.cut(tried[0], count)}:
                learner.compile(size)
            compiled = seconds(learner, *tried, steps=max(1, steps))
        except Exception as error:  # of a dozen classes, the C++ compiler's among them
            failure = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        worked = ranks.everywhere(math.isfinite(compiled))
        failure, compiled = ranks.tell(failure), ranks.tell(compiled)
    if worked and (wanted == "on" or eager > GAIN * compiled):
        return True, f"compiled: a step takes {compiled:.3g} s in place of {eager:.3g} s"
    learner.programs.clear()
    if worked:
        return False, f"not compiled: a step would take {compiled:.3g} s in place of {eager:.3g} s"
    return False, f"not compiled: the compiler failed ({failure or 'on another machine'})"


def batch(learner: Learner, shape: Shape, count: int) -> tuple[Tensor, Tensor]:
    """Random images, uint8 [N, H, W, C], or float32 where the recipe blends them, and targets, float32 [N, K]."""
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, device=learner.device)
    if learner.recipe.mixup:
        images = images.float()
    return images, learner.targets(torch.randint(learner.classes, (count,), device=learner.device))


def seconds(learner: Learner, images: Tensor, targets: Tensor, count: int, steps: int) -> float:
    """How long the network takes forth and back for a batch, at its best in so many steps after a first one."""
    learner.train()
    best = math.inf
    for number in range(1 + steps):
        start = time.perf_counter()
        learner.descend(images, targets, count)
        if learner.device.type == "cuda":
            torch.cuda.synchronize(learner.device)
        best = min(best, time.perf_counter() - start) if number else best
    return best


@contextmanager
def untouched(learner: Learner) -> Iterator[None]:
    """Leaves a learner that takes no step as it was: gradients, statistics of batch normalisation, random numbers."""
    buffers = [(buffer, buffer.clone()) for buffer in learner.classifier.buffers()]
    with _other_chance(learner.device):
        yield
    learner.optimizer.zero_grad()
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def _other_chance(device: torch.device) -> AbstractContextManager[None]:
    """In which random numbers may be drawn that nobody misses afterwards."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
