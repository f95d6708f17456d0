"""What is told of a run while it goes on."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from components.progress import duration
from pipelines.narration import Narrator
from pipelines.runs import RunState, StepState
from pipelines.terminal import Terminal


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(state: str = "RUNNING", **steps: str) -> RunState:
    """A run whose steps began two minutes ago; those that have ended took one."""
    now = datetime.now(UTC)
    return RunState(
        id="r",
        name="retrain",
        state=state,
        created=now - timedelta(minutes=3),
        finished=None,
        steps=tuple(
            StepState(
                name=name,
                state=said,
                start=None if said == "PENDING" else now - timedelta(minutes=2),
                end=now - timedelta(minutes=1) if said in ("SUCCEEDED", "FAILED") else None,
            )
            for name, said in steps.items()
        ),
        parameters={},
        experiment_id="e",
        recurring_run_id="",
        error="",
    )


def test_a_log_gets_one_line_for_each_change() -> None:
    log = io.StringIO()
    narrator = Narrator(Terminal(log))
    for shown in (
        run("PENDING", ingest="PENDING", train="PENDING"),
        run(ingest="RUNNING", train="PENDING"),
        run(ingest="RUNNING", train="PENDING"),
        run(ingest="SUCCEEDED", train="RUNNING"),
        run("FAILED", ingest="SUCCEEDED", train="FAILED"),
    ):
        narrator.show(shown)
    assert log.getvalue().splitlines() == [
        "ingest    started",
        "ingest    done in 60 s",
        "train     started",
        "train     FAILED in 60 s",
    ]


def test_a_terminal_shows_the_running_step_in_place() -> None:
    screen = FakeTerminal()
    narrator = Narrator(Terminal(screen))
    narrator.show(run("PENDING", ingest="PENDING"))
    narrator.show(run(ingest="RUNNING"))
    assert screen.getvalue() == ("run       pending, 3 min\r\x1b[2Kingest    started\ningest    running, 2 min")


def test_a_log_hears_of_a_long_step_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    narrator = Narrator(Terminal(log))
    narrator.show(run(train="RUNNING"))
    narrator.show(run(train="RUNNING"))
    monkeypatch.setattr("pipelines.narration.QUIET_SECONDS", -1)
    narrator.show(run(train="RUNNING"))
    assert log.getvalue() == "train     started\ntrain     running, 2 min\n"


def test_of_a_step_with_several_parts_it_is_told_how_many_are_done() -> None:
    screen = FakeTerminal()
    going = run(shard="RUNNING")
    Narrator(Terminal(screen)).show(replace(going, steps=(replace(going.steps[0], parts=8, done=3),)))
    assert screen.getvalue() == "shard     started\nshard     running, 3 of 8 done, 2 min"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, ""), (0.4, "0 s"), (119.4, "119 s"), (120, "2 min"), (3599, "59 min"), (3900, "1 h 05 min")],
)
def test_durations_read_well(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told
