"""What a person sees while steps run."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.progress import MARK
from pipelines.terminal import Terminal


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_every_line_behind_the_steps_name() -> None:
    log = io.StringIO()
    terminal = Terminal(log)
    terminal.line("train", MARK + "epoch 1/2 50%")
    terminal.line("train", "epoch 1 done")
    assert log.getvalue() == "train     epoch 1/2 50%\ntrain     epoch 1 done\n"


def test_a_terminal_draws_new_progress_over_the_old() -> None:
    screen = FakeTerminal()
    terminal = Terminal(screen)
    terminal.line("train", MARK + "50%")
    terminal.line("train", MARK + "75%")
    terminal.line("train", "done")
    assert screen.getvalue() == "train     50%\r\x1b[2Ktrain     75%\r\x1b[2Ktrain     done\n"


def test_several_steps_have_a_line_of_progress_each() -> None:
    screen = FakeTerminal()
    terminal = Terminal(screen)
    terminal.line("shard 1/2", MARK + "10%")
    terminal.line("shard 2/2", MARK + "20%")
    terminal.line("shard 1/2", MARK + "30%")
    terminal.line("shard 2/2", "done")
    terminal.say("accepted")
    assert rendered(screen.getvalue()) == ["shard 2/2 done", "accepted"]
    before = screen.getvalue().partition("shard 2/2 done")[0].removesuffix("\x1b[2K\x1b[1A\x1b[2K")
    assert rendered(before) == ["shard 1/2 30%", "shard 2/2 20%"]


def test_progress_never_takes_more_room_than_the_screen_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "4")
    monkeypatch.setenv("COLUMNS", "20")
    screen = FakeTerminal()
    terminal = Terminal(screen)
    for _ in range(3):
        for number in range(1, 9):
            terminal.line(f"shard {number}/8", MARK + "a long line that would take several on the screen")
    assert len(rendered(screen.getvalue())) == 3
    assert max(map(len, rendered(screen.getvalue()))) == 19
    terminal.say("done")
    assert rendered(screen.getvalue()) == ["done"]


def test_threads_do_not_tear_each_others_lines() -> None:
    log = io.StringIO()
    terminal = Terminal(log)

    def say(number: int) -> None:
        for _ in range(50):
            terminal.line("shard", f"{number} " * 20)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(say, range(8)))
    assert {len(set(line.split())) for line in log.getvalue().splitlines()} == {2}


def rendered(written: str) -> list[str]:
    """The lines that a terminal shows after this, as far as it knows the sequences that are used here."""
    lines, row = [""], 0
    for piece in re.findall(r"\r|\n|\x1b\[2K|\x1b\[1A|[^\r\n\x1b]+", written):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece != "\r":
            lines[row] += piece
    return [line for line in lines if line]


def test_a_line_that_is_no_progress_stays() -> None:
    screen = FakeTerminal()
    terminal = Terminal(screen)
    terminal.line("ingest", "reused")
    terminal.say("accepted")
    assert screen.getvalue() == "ingest    reused\naccepted\n"


def test_progress_that_is_for_programs_is_drawn_over_too() -> None:
    screen = FakeTerminal()
    terminal = Terminal(screen)
    terminal.line("train", "progress done=50% eta_seconds=9")
    terminal.line("train", "progress done=75% eta_seconds=4")
    terminal.line("train", "epoch epoch=1/2")
    assert rendered(screen.getvalue()) == ["train     epoch epoch=1/2"]
