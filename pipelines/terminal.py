"""What a person sees while steps run: in a terminal the newest progress in place, in a log one line after the other."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from components.progress import MARK

ERROR = "error: "


class Terminal:
    """Shows the lines of the running step, each behind the step's name."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.transient = False

    def line(self, step: str, text: str) -> None:
        """A line that the step printed; progress is drawn over by the next line where the stream is a terminal."""
        progress = text.startswith(MARK)
        self._write(f"{step:<9} {text.removeprefix(MARK)}", transient=progress and self.live)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(text, transient=False)

    def _write(self, text: str, *, transient: bool) -> None:
        clear = "\r\x1b[2K" if self.transient else ""
        self.stream.write(clear + text + ("" if transient else "\n"))
        self.stream.flush()
        self.transient = transient


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a log that comes in chunks, which may end in mid-line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
