"""Steps of a learner whose network is dealt to all ranks, beside those of one that has it alone; run by torchrun.

python -m torch.distributed.run --nproc-per-node 2 -m tests.components.train.sharded resnet18
prints the largest difference of their weights, and of the averages of these.
"""

import copy
import sys

import torch
from torch import Tensor

from components.models.artifact import Classifier, ModelConfig, build
from components.train.learner import Learner
from components.train.ranks import ALONE, Ranks, here, joined
from components.train.recipe import Recipe

SHAPE = (64, 64, 3)
CLASSES = tuple("0123456789")
IMAGES = 4


def compare(name: str, ranks: Ranks) -> float:
    torch.manual_seed(0)
    config = ModelConfig(name, {}, CLASSES, SHAPE, (0.5,) * 3, (0.5,) * 3, "", {})
    classifier = build(config).eval()  # or each rank would normalise by the statistics of its own images
    pupils = [pupil(copy.deepcopy(classifier), ALONE), pupil(classifier, ranks)]
    first, last = (place * IMAGES // ranks.ranks for place in (ranks.rank, ranks.rank + 1))
    for _ in range(2):
        images = torch.randint(256, (IMAGES, *SHAPE), dtype=torch.uint8)
        targets = pupils[0].targets(torch.randint(len(CLASSES), (IMAGES,)))
        pupils[0].learn(images, targets, IMAGES)
        pupils[1].learn(images[first:last], targets[first:last], IMAGES)
    state = pupils[1].state()
    pupils[1].restore(pupils[0].state())  # the same form: a checkpoint of either is one for both
    restored = pupils[1].state()
    if not ranks.first:
        return 0.0
    whole = pupils[0].state()
    assert all(torch.equal(restored["classifier"][key], value) for key, value in whole["classifier"].items())
    return max(difference(state[part], whole[part]) for part in ("classifier", "average"))


def pupil(classifier: Classifier, ranks: Ranks) -> Learner:
    recipe = Recipe(parallel="fsdp", ema=0.9, clip=1.0)
    return Learner(classifier, recipe, classes=10, batches=9, epochs=1, learning_rate=1e-3, ranks=ranks)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


if __name__ == "__main__":
    ranks = here()
    with joined(ranks, torch.device("cpu")):
        for name in sys.argv[1:]:
            found = compare(name, ranks)
            if ranks.first:
                print(name, found, flush=True)
