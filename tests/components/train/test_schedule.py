import pytest
import torch
from torch.optim import SGD

from components.train.recipe import read_recipe
from components.train.schedule import factor, schedule


def rates(text: str, batches: int, epochs: int) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    found = schedule(optimizer, read_recipe(text), batches, epochs)
    seen = []
    for _ in range(batches):
        seen.append(float(found.get_last_lr()[0]))
        optimizer.step()
        found.step()
    return seen


def test_the_momentum_of_sgd_is_what_the_recipe_says() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.3)
    found = schedule(optimizer, read_recipe("schedule=one_cycle"), batches=9, epochs=1)
    for _ in range(9):
        assert optimizer.param_groups[0]["momentum"] == 0.3
        optimizer.step()
        found.step()


def test_cosine_falls_by_half_a_wave() -> None:
    seen = rates("schedule=cosine", 100, 10)
    assert seen[0] == 1.0
    assert seen[50] == pytest.approx(0.5)
    assert seen[-1] < 0.001
    assert seen == sorted(seen, reverse=True)


def test_step_has_a_tenth_after_each_third() -> None:
    assert rates("schedule=step", 9, 3) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_the_rate_rises_evenly_in_the_epochs_of_warmup(name: str) -> None:
    seen = rates(f"schedule={name} warmup=2", 50, 10)
    assert seen[:10] == pytest.approx([(batch + 1) / 11 for batch in range(10)])
    assert seen[10] == pytest.approx(1.0)


def test_one_cycle_rises_and_falls() -> None:
    seen = rates("schedule=one_cycle", 100, 10)
    assert max(seen) == pytest.approx(1.0, abs=0.01)
    assert seen[0] < 0.1
    assert seen[-1] < 0.01


def test_the_last_batch_of_a_step_schedule_has_the_last_rate() -> None:
    assert factor("step", 9, 0, 9) == pytest.approx(0.01)
