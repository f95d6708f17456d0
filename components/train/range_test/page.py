"""A range test as people see it: a page for a browser, and plain characters for a terminal. Needs no torch."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from components.chart import Chart, Line, Tick, line_chart
from components.page import template
from components.train.range_test.curve import Curve

PAGE = Path(__file__).with_name("range_test.html")

TOP = 1.3
"""How many times its first value the loss is drawn up to; where it diverges, it may be a thousand."""
ROWS, COLUMNS = 15, 66
"""Characters of the chart in a terminal."""
LABEL = 7
"""Characters on its left, for values of the loss."""


def page(curve: Curve, title: str) -> str:
    """The page, HTML, self-contained."""
    rate, reason = curve.suggested
    return template(PAGE).render(title=title, rate=rate, reason=reason, curve=curve, chart=chart(curve))


def chart(curve: Curve) -> Chart:
    """The loss by the decimal logarithm of the learning rate; lines from top to bottom show what was found."""
    exponents = [math.log10(rate) for rate in curve.rates]
    series = {
        "batches": list(zip(exponents, clipped(curve, curve.losses), strict=True)),
        "smoothed": list(zip(exponents, clipped(curve, curve.smoothed), strict=True)),
    }
    drawn = line_chart("Loss", series, logarithmic=False, say=lambda loss: f"{loss:.3g}", axis="learning rate")
    # From a learning rate to a place: that of the first and of the last are known.
    (left, _), *_, (right, _) = drawn.lines[0].points
    found = {"steepest": curve.steepest, "diverges": curve.diverges, "suggested": curve.suggested[0]}
    places = {name: left + place(curve, rate) * (right - left) for name, rate in found.items() if rate}
    marks = [Line(name, [(across, drawn.top), (across, drawn.bottom)]) for name, across in places.items()]
    return replace(
        drawn,
        summary=f"Loss by learning rate, from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}.",
        lines=(*marks, *drawn.lines),
        x_ticks=tuple(Tick(tick.at, f"1e{tick.label}") for tick in drawn.x_ticks),
    )


def plot(curve: Curve) -> str:
    """The smoothed loss by learning rate, in plain characters; `^` points at the learning rate that is suggested."""
    losses = clipped(curve, curve.smoothed)
    low, high = min(losses), max(losses)
    rows = [[" "] * COLUMNS for _ in range(ROWS)]
    for rate, loss in zip(curve.rates, losses, strict=True):
        rows[round((high - loss) / (high - low) * (ROWS - 1))][column(curve, rate)] = "*"
    labels = {0: f"{high:.3g}", ROWS - 1: f"{low:.3g}"}
    lines = [f"{labels.get(number, ''):>{LABEL}} |{''.join(row)}" for number, row in enumerate(rows)]
    return "\n".join(line.rstrip() for line in [*lines, *axis(curve)])


def axis(curve: Curve) -> list[str]:
    """The lines below the chart: one with a mark a decade, and the learning rates that these are."""
    line, words = ["-"] * COLUMNS, [" "] * (COLUMNS + 4)
    first, last = math.log10(curve.rates[0]), math.log10(curve.rates[-1])
    for exponent in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        at = column(curve, 10.0**exponent)
        line[at] = "+"
        words[at : at + 4] = f"{f'1e{exponent}':4}"
    line[column(curve, curve.suggested[0])] = "^"
    return [f"{'':{LABEL}}  {''.join(line)}", f"{'loss':>{LABEL}}  {''.join(words)}"]


def column(curve: Curve, rate: float) -> int:
    """Where a learning rate has its column in a terminal."""
    return round(place(curve, rate) * (COLUMNS - 1))


def place(curve: Curve, rate: float) -> float:
    """How far a learning rate is from the first to the last, from 0 to 1, by its logarithm."""
    return math.log(rate / curve.rates[0]) / math.log(curve.rates[-1] / curve.rates[0])


def clipped(curve: Curve, losses: Iterable[float]) -> list[float]:
    """Losses as far up as they are drawn."""
    return [min(float(loss), TOP * curve.first) for loss in losses]
