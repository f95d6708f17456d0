import pytest
import torch
from timm.optim._optim_factory import list_optimizers

from components.storage import DirectoryStore
from components.train.checkpoint import Checkpoints
from components.train.recipe import OPTIMIZERS
from tests.components.train.test_learner import learn, pupil, weights

WITHOUT_CHECKPOINT = ("adafactorbv", "adafactorbvc", "cadafactorbv", "cadafactorbvc", "kron", "kronc", "kronw")
NOT_INSTALLED = ("bnb", "fused")  # how the names of bitsandbytes and APEX start


def test_the_optimizers_are_those_of_timm_but_for_what_does_not_train_here() -> None:
    names = {name for name in map(str, list_optimizers()) if not name.startswith(NOT_INSTALLED)}
    assert list(OPTIMIZERS) == sorted(names - {"adahessian", *WITHOUT_CHECKPOINT})


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_steps_and_goes_on_from_a_checkpoint(name: str, store: DirectoryStore) -> None:
    recipe = f"optimizer={name}"
    straight, other = pupil(recipe), pupil(recipe)
    for _ in range(3):
        learn(straight)
    assert not any(torch.equal(one, two) for one, two in zip(weights(straight), weights(other), strict=True))
    checkpoints = Checkpoints(store, "checkpoints/", 0)
    checkpoints.save(3, straight.state())
    assert checkpoints.wait()
    state = checkpoints.latest()
    assert state
    other.restore(state)
    for learner in (straight, other):
        for _ in range(3):
            learn(learner)
    assert all(weight.isfinite().all() for weight in weights(straight))
    assert all(torch.equal(one, two) for one, two in zip(weights(straight), weights(other), strict=True))
