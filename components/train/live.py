"""The page of a training, while it goes on and afterwards."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.chart import Chart, Points, line_chart
from components.page import template
from components.progress import Figure, duration
from components.train.events import Scalars

REFRESH_SECONDS = 10
"""After which a browser loads the page of a running training again."""

PAGE = Path(__file__).with_name("live.html")


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a training is."""

    title: str
    state: str
    """running, finished, failed or stopped."""
    sentence: str
    """What there is to say of its end."""
    epoch: int
    epochs: int
    batches: int
    """Of an epoch."""
    share: float
    """Done of the whole, from 0 to 1."""
    seconds_left: float
    images_per_second: float
    figures: Sequence[Figure]
    """As the last line of progress had them."""
    curve: Sequence[Mapping[str, Any]]
    """A row an epoch."""
    points: Sequence[Scalars]
    """From batch to batch."""
    notes: Sequence[str]
    hints: Sequence[str]


def render(status: Status) -> str:
    """The page, HTML."""
    return template(PAGE).render(
        title=status.title,
        state=status.state,
        sentence=status.sentence,
        headline=headline(status),
        share=1.0 if status.state == "finished" else status.share,
        figures=figures(status),
        charts=charts(status),
        notes=status.notes,
        hints=status.hints,
        refresh_seconds=REFRESH_SECONDS,
        now=datetime.now(UTC),
    )


def headline(status: Status) -> str:
    """The one line above all."""
    where = f"epoch {status.epoch} of {status.epochs}"
    if status.state == "finished":
        return where
    known = status.state == "running" and status.seconds_left < math.inf
    return f"{where}, {status.share:.0%}" + (f", {duration(status.seconds_left)} left" if known else "")


def figures(status: Status) -> dict[str, tuple[str, str]]:
    """The numbers below it: {name: (value, what it counts)}."""
    found: dict[str, tuple[str, str]] = {}
    if status.curve:
        best = max(status.curve, key=lambda row: row["validation_accuracy"])
        found["Best accuracy"] = (
            f"{100 * best['validation_accuracy']:.2f} %",
            f"after epoch {best['epoch']}",
        )
    if status.images_per_second:
        found["Speed"] = f"{status.images_per_second:,.0f}", "images a second"
    named = {figure.name: (figure.value, figure.unit) for figure in status.figures if figure.name != "epoch"}
    return found | {name[:1].upper() + name[1:]: said for name, said in named.items()}


def charts(status: Status) -> dict[str, Chart | None]:
    """The curves by epoch; None where there is nothing to draw yet."""
    loss = {
        "train": points(status, "train/loss") or epochs(status, "train_loss"),
        "validation": epochs(status, "validation_loss"),
    }
    accuracy = {"validation": epochs(status, "validation_accuracy")}
    rate = {"train": points(status, "train/learning_rate")}
    speed = {"train": points(status, "train/images_per_second")}
    longest = max(
        [1.0, *(told.step / status.batches for told in status.points), *(row["epoch"] for row in status.curve)]
    )

    def chart(title: str, series: Mapping[str, Points], logarithmic: bool, say: Callable[[float], str]) -> Chart | None:
        drawn = {name: points for name, points in series.items() if points}
        return line_chart(title, drawn, logarithmic, say, span=(0, longest)) if drawn else None

    return {
        "Loss (logarithmic)": chart("Loss", loss, True, lambda loss: f"{loss:.3g}"),
        "Validation accuracy": chart("Validation accuracy", accuracy, False, lambda share: f"{100 * share:.4g} %"),
        "Learning rate": chart("Learning rate", rate, False, lambda rate: f"{rate:.2g}"),
        "Images a second": chart("Images a second", speed, False, lambda speed: f"{speed:,.0f}"),
    }


def points(status: Status, tag: str) -> Points:
    """A value from batch to batch, by epoch."""
    found = [(told.step / status.batches, told.values[tag]) for told in status.points if tag in told.values]
    return [(x, y) for x, y in found if math.isfinite(y)]


def epochs(status: Status, name: str) -> Points:
    """A value from epoch to epoch."""
    return [(row["epoch"], row[name]) for row in status.curve if math.isfinite(row[name])]
