"""Batches gathered into points."""

import math
import time

import pytest
import torch

from components.train.events import Scalars
from components.train.pace import Pace


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def learn(pace: Pace, clock: list[float], batches: int, seconds: float = 0.1, waited: float = 0.0) -> list[Scalars]:
    """Batches of 32 images that take so long each, of which so long is waited; the points that they make."""
    made = []
    for _ in range(batches):
        clock[0] += seconds
        step = pace.step + 1
        if pace.advance(step, 32, 1 / step, 0.1 * step, pace.waited_seconds + waited):
            made.append(pace.point())
    return [point for point in made if point]


def test_a_point_has_the_mean_loss_the_speed_and_the_wait_of_its_batches(clock: list[float]) -> None:
    (point,) = learn(Pace(4, done=0), clock, 3, seconds=0.125, waited=0.025)
    assert point.step == 2
    assert point.values == {
        "train/loss": pytest.approx((1 + 1 / 2) / 2),
        "train/learning_rate": pytest.approx(0.2),
        "train/images_per_second": pytest.approx(64 / 0.25),
        "train/data_wait": pytest.approx(0.2),
    }


def test_a_loss_may_lie_on_a_device(clock: list[float]) -> None:
    pace = Pace(10, done=0)
    for step in (1, 2):
        clock[0] += 1
        pace.advance(step, 32, torch.tensor(float(step)), 0.1, 0.0)
    point = pace.point()
    assert point
    assert point.values["train/loss"] == 1.5
    assert isinstance(point.values["train/loss"], float)


def test_a_loss_that_was_given_is_not_changed() -> None:
    pace, loss = Pace(10, done=0), torch.tensor(1.0)
    for step in (1, 2, 3):
        pace.advance(step, 32, loss, 0.1, 0.0)
    assert loss.item() == 1.0


@pytest.mark.parametrize(("batches", "seconds"), [(2_500, 0.0125), (450_000, 0.02), (90, 60.0)])
def test_however_long_a_training_is_it_has_some_hundreds_of_points(
    clock: list[float], batches: int, seconds: float
) -> None:
    points = learn(Pace(batches, done=0), clock, batches, seconds)
    assert min(batches, 100) <= len(points) <= 1200
    assert points[0].step * seconds <= 1.0 or points[0].step == 1


def test_while_the_model_is_validated_the_clock_stands_still(clock: list[float]) -> None:
    pace = Pace(1000, done=0)
    learn(pace, clock, 2)
    pace.stop()
    clock[0] += 500
    pace.go_on()
    (point,) = learn(pace, clock, 1)
    assert point.values["train/images_per_second"] == pytest.approx(320)
    assert pace.seconds == pytest.approx(0.3)


def test_batches_that_made_no_point_yet_make_one_when_asked(clock: list[float]) -> None:
    pace = Pace(1000, done=0)
    assert pace.point() is None
    learn(pace, clock, 2)
    assert (last := pace.point())
    assert last.step == 2
    assert pace.point() is None


def test_before_the_first_batch_nothing_is_known() -> None:
    assert math.isnan(Pace(10, done=5).learning_rate)
