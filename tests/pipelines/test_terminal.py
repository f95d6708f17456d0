"""What a person sees while steps run."""

import io

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


def test_a_line_that_is_no_progress_stays() -> None:
    screen = FakeTerminal()
    terminal = Terminal(screen)
    terminal.line("ingest", "reused")
    terminal.say("accepted")
    assert screen.getvalue() == "ingest    reused\naccepted\n"
