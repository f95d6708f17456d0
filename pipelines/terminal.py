"""What a person sees while steps run: in a terminal the newest progress in place, in a log one line after the other."""

import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TextIO

from components.progress import shown

ERROR = "error: "


class Terminal:
    """Shows the lines of the running steps, each behind the step's name. Threads may share it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.lock = threading.Lock()
        self.progress: dict[str, str] = {}  # the newest line by step
        self.drawn = 0  # lines of it on the screen

    def line(self, step: str, text: str) -> None:
        """A line that the step printed; where the stream is a terminal, progress is drawn over by the next line."""
        progress = shown(text)
        told = f"{step:<9} {text if progress is None else progress}"
        if progress is not None and self.live:
            with self.lock:
                self.progress[step] = told
                self._draw("")
        else:
            self.say(told)

    def say(self, text: str) -> None:
        """A line that stays."""
        with self.lock:
            self.progress.clear()
            self._draw(text + "\n")

    def _draw(self, text: str) -> None:
        """Writes `text` over the progress, and what is progress now below it, as far as the screen has room."""
        columns, rows = shutil.get_terminal_size()
        below = [line[: columns - 1] for line in self.progress.values()][: rows - 1]
        clear = "\r" + "\x1b[1A".join(["\x1b[2K"] * self.drawn) if self.drawn else ""
        self.stream.write(clear + text + "\n".join(below))
        self.stream.flush()
        self.drawn = len(below)


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a log that comes in chunks, which may end in mid-line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
