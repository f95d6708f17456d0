"""The geometry of a line chart, ready to be drawn as SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it is, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line by its points in the view box."""

    name: str
    points: Points

    @property
    def path(self) -> str:
        """The `d` of an SVG path."""
        return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """Lines in a view box over what `axis` names; `summary` is for those who do not see it."""

    summary: str
    axis: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = 440
    height: int = 250
    left: int = 56  # the plot's edges within the view box
    right: int = 432
    top: int = 10
    bottom: int = 212


def line_chart(
    title: str,
    series: Mapping[str, Points],
    logarithmic: bool,
    say: Callable[[float], str],
    span: tuple[float, float] | None = None,
    axis: str = "epoch",
) -> Chart:
    """Lays out series of (x, y) on common axes; `say` words a value of y. Below zero nothing is logarithmic.

    `axis` names x, and `span` is what it reaches over: unless it is given, from the first to the last.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    first, last = span or (min(xs), max(max(xs), min(xs) + 1))
    marks = decades(min(ys), max(ys)) if logarithmic and min(ys) > 0 else ticks(min(ys), max(ys), 5)
    scale = math.log if logarithmic and min(ys) > 0 else float
    low, high = scale(marks[0]), scale(marks[-1])

    def across(x: float) -> float:
        return Chart.left + (x - first) / (last - first) * (Chart.right - Chart.left)

    def down(y: float) -> float:
        return Chart.bottom - (scale(y) - low) / (high - low) * (Chart.bottom - Chart.top)

    spans = [f"{name} from {say(points[0][1])} to {say(points[-1][1])}" for name, points in series.items()]
    return Chart(
        summary=f"{title} by {axis}: {', '.join(spans)}.",
        axis=axis,
        lines=tuple(Line(name, [(across(x), down(y)) for x, y in points]) for name, points in series.items()),
        x_ticks=tuple(Tick(across(x), f"{x:.0f}") for x in ticks(first, last, 8) if first <= x <= last and x % 1 == 0),
        y_ticks=tuple(Tick(down(y), say(y)) for y in marks),
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """About so many round numbers, steps of 1, 2 or 5 times a power of ten apart, that reach from `low` to `high`."""
    span = max(high - low, 1e-3 * max(abs(high), 1.0))
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(step * count, 12) for count in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten, or the powers alone where these are many, that reach from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    factors = (1, 2, 5) if len(powers) <= 5 else (1,)
    marks = [float(f"{factor}e{power}") for power in powers for factor in factors]
    first = max(index for index, mark in enumerate(marks) if mark <= low)
    last = next(index for index, mark in enumerate(marks) if mark >= high and index > first)
    return marks[first : last + 1]
