"""A run told as it goes: a line for each step that starts or ends, and the time in place where there is a terminal."""

import time

from components.progress import MARK, duration
from pipelines.runs import RunState, StepState
from pipelines.terminal import Terminal

QUIET_SECONDS = 60
"""A log gets a line at least this often: CI systems end jobs that say nothing."""

WORDS = {
    "RUNNING": "started",
    "SUCCEEDED": "done",
    "SKIPPED": "skipped",
    "FAILED": "FAILED",
    "CANCELING": "is being cancelled",
    "CANCELED": "cancelled",
    "PAUSED": "paused",
}


class Narrator:
    """Says what changed since it was last shown the run."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.seen: dict[str, str] = {}
        self.spoken = time.monotonic()

    def show(self, run: RunState) -> None:
        """Says what is new of the run."""
        for step in run.steps:
            if step.state in WORDS and self.seen.get(step.name) != step.state:
                self._say(step.name, news(step))
            self.seen[step.name] = step.state
        quiet = time.monotonic() - self.spoken > QUIET_SECONDS
        if not run.ended and (self.terminal.live or quiet):
            for name, text in going_on(run):
                self._say(name, MARK + text)

    def _say(self, name: str, text: str) -> None:
        self.terminal.line(name, text)
        self.spoken = time.monotonic()


def news(step: StepState) -> str:
    """A step's new state, and how long it took if it has ended."""
    took = (
        f" in {duration(step.seconds)}" if step.end and step.seconds and step.state in ("SUCCEEDED", "FAILED") else ""
    )
    return WORDS[step.state] + took


def going_on(run: RunState) -> list[tuple[str, str]]:
    """The step that runs now, or the run itself where none does, and since when; a list of one."""
    running = [step for step in run.steps if step.state == "RUNNING"]
    if running:
        return [(running[-1].name, f"running, {progress(running[-1])}{duration(running[-1].seconds)}")]
    return [("run", f"{run.state.lower().replace('_', ' ')}, {duration(run.seconds)}")]


def progress(step: StepState) -> str:
    """How many of its parts are done, where it has several."""
    return f"{step.done} of {step.parts} done, " if step.parts > 1 else ""
