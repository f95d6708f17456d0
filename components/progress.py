"""How far, how fast, how long still: one line at a time, for a person, or in a pod for programs too (logfmt)."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from components.step import UserError

MARK = "progress: "
"""Starts every line of progress for a person, so that `retrain run` can show the newest in place of the one before."""

SAID = re.compile(MARK + r"|progress (?=\w+=)")
"""What such a line starts with in either format."""

FORMAT = "RETRAIN_LOG_FORMAT"
"""The variable that is `logfmt` where lines are for programs: `progress done=21% images_per_second=18040`."""


class Figure(NamedTuple):
    """A value in a line: `loss 0.031`, or `memory 812 MiB`, which is `memory_mib=812` in logfmt."""

    name: str
    value: str
    unit: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))

    @property
    def field(self) -> tuple[str, str]:
        """Key and value in logfmt."""
        return "_".join(f"{self.name} {self.unit}".lower().split()), self.value.replace(",", "")


class Progress:
    """Counts towards a total and says so on stderr, at most once in RETRAIN_PROGRESS_SECONDS (default 10).

    `what` may be empty, where the step itself is meant; `total` is None where nobody knows it. `done` was done by an
    earlier process, and says nothing of the speed of this one. `figures` gives what is shown beside it, and is asked
    only when a line is said. Raises UserError where that variable is no number.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        *,
        done: int = 0,
        figures: Callable[[], Iterable[Figure]] = tuple,
    ) -> None:
        self.what, self.total, self.unit, self.figures = what, total, unit, figures
        self.pause = _pause()
        self.done = self.done_before = done
        self.start = self.spoken = time.monotonic()

    def advance(self, count: int) -> None:
        """Adds `count` units."""
        self.done += count
        now = time.monotonic()
        if now - self.spoken >= self.pause or (self.total is not None and self.done >= self.total):
            self.spoken = now
            print(self.fields(now) if structured() else MARK + self.line(now), file=sys.stderr, flush=True)

    def speed(self, now: float) -> float:
        """Units a second, since the beginning."""
        return (self.done - self.done_before) / max(now - self.start, 1e-9)

    def share(self) -> float:
        """The part that is done, where the total is known, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    def seconds_left(self, now: float) -> float:
        """Until the total is reached, at this speed; infinite where nothing was done yet."""
        left = max(0, (self.total or 0) - self.done)
        return left / speed if (speed := self.speed(now)) else math.inf if left else 0.0

    def line(self, now: float) -> str:
        """What a person reads: `read 25%, 50 images/s, 6 s left`."""
        far, left = f"{self.done:,} {self.unit}", ""
        if self.total is not None:
            far = f"{self.share():.0%}"
            left = f"{duration(self.seconds_left(now))} left" if self.seconds_left(now) < math.inf else ""
        pieces = [f"{self.what} {far}".lstrip(), f"{self.speed(now):,.0f} {self.unit}/s", left]
        return ", ".join([*filter(None, pieces), *map(str, self.figures())])

    def fields(self, now: float) -> str:
        """The same in logfmt: `progress what=read done=25% images_per_second=50 eta_seconds=6`."""
        unit, fields = self.unit.lower(), {"what": self.what} if self.what else {}
        if self.total is None:
            fields[unit] = f"{self.done}"
        else:
            fields["done"] = f"{self.share():.0%}"
        fields[f"{unit}_per_second"] = f"{self.speed(now):.0f}"
        if self.total is not None and self.seconds_left(now) < math.inf:
            fields["eta_seconds"] = f"{self.seconds_left(now):.0f}"
        return logfmt("progress", {**fields, **dict(figure.field for figure in self.figures())})


def _pause() -> float:
    value = os.environ.get("RETRAIN_PROGRESS_SECONDS", "10")
    try:
        return float(value)
    except ValueError:
        raise UserError(f"RETRAIN_PROGRESS_SECONDS must be a number of seconds, not {value!r}") from None


def structured() -> bool:
    """Whether lines are for programs."""
    return os.environ.get(FORMAT) == "logfmt"


def say(kind: str, sentence: str, fields: Mapping[str, str] | None = None) -> None:
    """Prints a line that is no progress: the sentence, or where lines are for programs, its kind and its fields."""
    print(logfmt(kind, fields or {"text": sentence}) if structured() else sentence, flush=True)


def logfmt(kind: str, fields: Mapping[str, str]) -> str:
    """A line that people can read and log systems index: a word, and `key=value` behind it (brandur.org/logfmt)."""
    return " ".join([kind, *(f"{key}={_quoted(value)}" for key, value in fields.items())])


def _quoted(value: str) -> str:
    if value and not re.search(r'[\s="\\]', value):
        return value
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


def shown(line: str) -> str | None:
    """What a line of progress says, in either format, without its mark; None for any other line."""
    found = SAID.match(line)
    return line[found.end() :] if found else None


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: `12 s`, `3 min`, `2 h 05 min`."""
    if seconds is None:
        return ""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if hours < 1 else f"{hours} h {minutes % 60:02d} min"
