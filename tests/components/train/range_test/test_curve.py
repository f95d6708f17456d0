import numpy as np
import pytest

from components.step import StepError
from components.train.range_test.curve import Curve
from components.train.range_test.page import COLUMNS, LABEL, page, plot

RATES = tuple(np.geomspace(1e-6, 1, 200).tolist())


def curve(falls: float, diverges: float, low: float = 0.3, noise: float = 0.02) -> Curve:
    """A loss of 2.3 that falls by and by at about one learning rate, and jumps up again at another."""
    random = np.random.default_rng(0)
    losses = [
        3.0 if rate >= diverges else low + (2.3 - low) / (1 + (rate / falls) ** 2) + random.normal(0, noise)
        for rate in RATES
    ]
    return Curve(RATES, tuple(losses))


def test_it_is_a_tenth_of_where_the_loss_diverges() -> None:
    rate, reason = curve(falls=1e-3, diverges=0.05).suggested
    assert rate == pytest.approx(0.005, rel=0.2)
    assert reason.startswith("a tenth of 0.0")
    assert reason.endswith(", where the loss diverges")


def test_it_is_where_the_loss_falls_the_fastest_if_that_is_more() -> None:
    found = curve(falls=0.03, diverges=0.1)
    assert found.suggested == (float(f"{found.steepest:.2g}"), "where the loss falls the fastest")
    assert found.steepest == pytest.approx(0.03, rel=0.5)


def test_a_loss_that_never_diverges_says_so() -> None:
    found = curve(falls=1e-3, diverges=2.0)
    assert found.diverges is None
    assert found.suggested[1] == "where the loss falls the fastest"


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_noise_moves_little(noise: float) -> None:
    found = curve(falls=1e-3, diverges=0.05, noise=noise)
    assert found.steepest == pytest.approx(1e-3, rel=1)
    assert found.diverges == pytest.approx(0.05, rel=0.3)


def test_a_single_bad_batch_is_no_divergence() -> None:
    losses = list(curve(falls=1e-3, diverges=0.05).losses)
    losses[130] = 9.0
    assert Curve(RATES, tuple(losses)).diverges == pytest.approx(0.05, rel=0.3)


def test_what_comes_after_it_diverged_does_not_count() -> None:
    losses = curve(falls=1e-3, diverges=0.02).losses
    recovered = Curve(RATES, (*losses[:170], *np.linspace(3, 0.1, 30)))
    assert recovered.diverges == pytest.approx(0.02, rel=0.3)
    assert recovered.steepest == pytest.approx(1e-3, rel=0.5)


@pytest.mark.parametrize("low", [2.3, 2.25, 4.0])
def test_a_loss_that_does_not_fall_suggests_nothing(low: float) -> None:
    with pytest.raises(StepError, match=r"does not fall at any learning rate from 1e-06 to 1: it begins at 2\.3"):
        _ = curve(falls=1e-3, diverges=2.0, low=low).suggested


def test_a_curve_that_ended_at_once_suggests_nothing() -> None:
    with pytest.raises(StepError, match="does not fall"):
        _ = Curve((1e-6,), (0.0,)).suggested


def test_a_terminal_shows_the_curve_and_points_at_the_learning_rate() -> None:
    found = curve(falls=1e-3, diverges=0.05)
    lines = plot(found).split("\n")
    assert max(map(len, lines)) <= 80
    assert plot(found).isascii()
    stars = [line.rfind("*") for line in lines]
    assert stars[0] == LABEL + 1 + COLUMNS, "at the end the loss is the highest"
    assert any(line[LABEL + 2 :].startswith("*") for line in lines[1:]), "lower than it began"
    assert lines[-1].split() == ["loss", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e0"]
    decade = (COLUMNS - 1) / 6
    assert lines[-2].index("^") - lines[-1].index("1e-3") == pytest.approx(decade * np.log10(5), abs=2)


def test_the_page_shows_what_was_found() -> None:
    text = page(curve(falls=1e-3, diverges=0.05), "lenet5 <of> images")
    assert "lenet5 &lt;of&gt; images" in text
    assert ">learning rate</text>" in text
    assert "epoch" not in text
    for line in ("batches", "smoothed", "steepest", "diverges", "suggested"):
        assert f'<path class="line {line}" d="M' in text
    assert "nan" not in text
