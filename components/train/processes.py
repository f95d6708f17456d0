"""The processes that one training has on one machine, seen from that which has started them."""

import math
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from threading import Thread

from components.step import StepError, UserError
from components.train.interruption import Interruption

POLL_SECONDS = 0.05
SETTLE_SECONDS = 5.0
"""In which the others should notice that one has failed, and end by themselves."""
SAVE_SECONDS = 120.0
"""In which rank 0 should have written a checkpoint, once another one has ended for SIGTERM."""
SHOWN_LINES = 40
"""Of what a process said that failed without a sentence."""

ERROR = "error: "
"""Starts the sentence in which a step says why it failed."""
LOST = "another process of this training has gone"
"""What a process says that waits for one that is no more: that one knows why, or whoever killed it."""
ENDED = 128 + signal.SIGTERM
"""What a training exits with that was asked to end, and has written a checkpoint."""


class Process:
    """One of the processes; the first speaks for all, what others say is kept in case one fails."""

    def __init__(self, rank: int, command: Sequence[str], environment: dict[str, str]) -> None:
        self.rank, self.error, self.lines = rank, "", deque[str](maxlen=SHOWN_LINES)
        self.code: int | None = None
        """What it exited with by itself, or minus the number of the signal that ended it."""
        self.ended = math.inf
        """When it was seen to have ended, by time.monotonic()."""
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C reaches the launching process alone, which passes it on once
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def runs(self) -> bool:
        """Whether it still does; if not, `code` and `ended` are known from now on."""
        if self.code is None and (code := self._process.poll()) is not None:
            self.code, self.ended = code, time.monotonic()
        return self.code is None

    @property
    def lost(self) -> bool:
        """Whether all that it suffers from is that another one has gone."""
        return self.error.startswith(LOST)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def abandon(self) -> None:
        """Kills it if it still runs."""
        if self.runs:
            self._process.kill()
            self._process.wait()
        self._reader.join(SETTLE_SECONDS)

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.lines.append(line)
            if line.startswith(ERROR):
                self.error = line.removeprefix(ERROR).strip()
            elif self.rank == 0:
                print(line, end="", file=sys.stderr, flush=True)


def watch(started: Sequence[Process], interruption: Interruption) -> None:
    """Waits until all have ended, or one has failed and the others have had the time to notice."""
    passed = False
    while any(process.runs for process in started) and time.monotonic() < min(map(_patience, started)):
        if interruption.requested and not passed:
            send(started, signal.SIGTERM)
            passed = True
        time.sleep(POLL_SECONDS)


def wait(started: Sequence[Process], seconds: float) -> None:
    """Waits until all have ended, but no longer than that."""
    end = time.monotonic() + seconds
    while any(process.runs for process in started) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def send(started: Sequence[Process], number: signal.Signals) -> None:
    """Sends a signal to all."""
    for process in started:
        process.send(number)


def check(started: Sequence[Process], asked: bool) -> None:
    """Raises what the process that failed by itself has said; exits where they ended because they were `asked` to."""
    failed = [process for process in started if process.code]
    own = [process for process in failed if process.code != ENDED and not (asked and _stopped(process))]
    if own:
        raise verdict(min(own, key=lambda process: (process.lost, process.ended)), len(started))
    if failed:
        sys.exit(ENDED)


def verdict(process: Process, processes: int) -> UserError | StepError:
    """Why a process failed, in a sentence."""
    name, code = f"process {process.rank} of {processes}", process.code
    assert code
    if process.error:
        return UserError(process.error) if code == UserError.code else StepError(process.error)
    if code == -signal.SIGKILL:
        return StepError(f"{name} was killed, as happens where memory runs out; try a smaller --batch-size")
    if code < 0:
        return StepError(f"{name} was ended by {signal.Signals(-code).name}")
    if process.rank > 0:
        sys.stderr.writelines(process.lines)
    said = [line.removeprefix(f"[rank{process.rank}]:").strip() for line in process.lines]  # in PyTorch's tracebacks
    last = next(filter(None, reversed(said)), "it said nothing")
    return StepError(f"{name} failed with exit code {code}: {last}")


def _stopped(process: Process) -> bool:
    """Whether it ended as one does that is asked to before it has begun to train, or because another one did."""
    return process.lost or process.code == -signal.SIGTERM


def _patience(process: Process) -> float:
    """When the others should have ended: soon after it has failed, and in time where it was only asked to end."""
    return process.ended + (SAVE_SECONDS if process.code == ENDED else SETTLE_SECONDS) if process.code else math.inf
