"""Trains for a few batches at ever higher learning rates, and keeps the losses alone."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.optim.lr_scheduler import LambdaLR

from components.dataset.manifest import read_manifest
from components.loader.batches import TrainingBatches
from components.memory import keep_freed_memory
from components.models.artifact import build
from components.progress import Figure, Progress, say
from components.step import Metadata, StepError
from components.storage import open_store
from components.train.augmentation import mix
from components.train.hardware import choose, choose_device
from components.train.interface import Train
from components.train.learner import Learner
from components.train.range_test.curve import SMOOTHED, Curve
from components.train.range_test.page import page
from components.train.ranks import ALONE
from components.train.recipe import read_recipe
from components.train.train import begin, check_splits, describe, enough_memory, load, make_learner, write

LOWEST, HIGHEST = 1e-6, 1.0
"""Learning rates, the first and the last."""
BATCHES = 200
"""From one to the other; each has a learning rate 7 % above that of the batch before."""
MOST = 4.0
"""How many times its first value a loss counts, at most: a single one may be a million."""
LOST = 2.0
"""How many times its first value the loss is, for as many batches as are smoothed, when nothing will change that."""


def range_test(step: Train) -> Metadata:
    """Finds a learning rate for a training, by the range test of Smith, "Cyclical Learning Rates for Training Neural
    Networks", 2017, arXiv:1506.01186, section 3.3.

    `step.metrics` becomes a JSON object: `learning_rate`, the suggestion, `reason`, and what it is drawn from, `rates`
    and `losses`. `step.curves` becomes a page that shows them. There is no model; epochs, learning rate and schedule
    are not looked at. Raises StepError where the loss is no number from the beginning, or falls at no learning rate.
    """
    keep_freed_memory()
    step = dataclasses.replace(step, learning_rate=LOWEST)
    recipe = dataclasses.replace(read_recipe(step.recipe), schedule="constant", warmup=0.0)
    device = choose_device(step, 0)
    manifest, store = read_manifest(step.dataset), open_store(step.store)
    check_splits(manifest, 1)
    config = describe(step, manifest)
    torch.manual_seed(step.seed)
    classifier = build(config)
    start = begin(step, classifier, config, store)
    classifier.to(device).to(memory_format=torch.channels_last)
    choices = choose(step, recipe, classifier, config, manifest, ALONE)
    for note in filter(None, [start, *choices["notes"]]):
        say("note", note)
    batches, _ = load(step, recipe, store, manifest, config, choices["batch_size"], device, ALONE)
    learner = make_learner(step, recipe, classifier, manifest, BATCHES, choices, ALONE)
    with enough_memory(device, f"a batch of {choices['batch_size']}"):
        curve = Curve(*zip(*measure(learner, batches), strict=True))
    rate, reason = curve.suggested
    told = {"learning_rate": rate, "reason": reason, "batch_size": choices["batch_size"]}
    write(step.metrics, json.dumps(told | dataclasses.asdict(curve), indent=1) + "\n")
    write(step.curves, page(curve, f"{step.architecture}, {manifest.digest[:12]}"))
    return {}


def measure(learner: Learner, batches: TrainingBatches) -> Iterator[tuple[float, float]]:
    """Learning rates, and the loss of a batch at each, until it ceases to be a number or stays far above the first.

    Raises StepError where it is no number before anything was learnt.
    """
    learner.schedule = LambdaLR(learner.optimizer, lambda batch: (HIGHEST / LOWEST) ** (batch / (BATCHES - 1)))
    learner.train()
    losses: list[float] = []
    progress = Progress("", BATCHES, "batches", figures=lambda: [Figure("learning rate", f"{rate:.2g}")])
    for images, targets in itertools.islice(mixed(learner, batches), BATCHES):
        rate = learner.learning_rate
        loss = float(learner.learn(images, targets, len(targets)))
        if not (losses or math.isfinite(loss)):
            raise StepError(
                f"loss is {loss} in the first batch, before anything was learnt: no learning rate helps; look at the "
                "images (`retrain data describe`) and at the weights that --start takes"
            )
        progress.advance(1)
        most = MOST * (losses or [loss])[0]
        losses.append(loss if loss < most else most)  # also where it is no number
        yield rate, losses[-1]
        if not math.isfinite(loss) or min(losses[-SMOOTHED:]) > LOST * losses[0]:
            return


def mixed(learner: Learner, batches: TrainingBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and targets, one epoch after the other, mixed as the recipe says."""
    recipe, chance = learner.recipe, Generator().manual_seed(batches.seed)
    for images, labels in itertools.chain.from_iterable(map(batches.epoch, itertools.count(1))):
        targets = learner.targets(labels)
        yield mix(images, targets, recipe.mixup, recipe.cutmix, chance) if recipe.mixes else (images, targets)
