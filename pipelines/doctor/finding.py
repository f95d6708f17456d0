"""One line of what the doctor says, and how the lines are found."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from components.step import StepError, UserError

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, what was seen, and what to do about it; nothing to do where all is well."""

    name: str
    state: State
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """Something to look at; `look` may raise UserError or StepError instead, whose sentence becomes the finding."""

    name: str
    look: Callable[[], Sequence[Finding]]


def ok(name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """Works, or may be meant so; but somebody should know."""
    return Finding(name, "warning", seen, advice)


def failed(name: str, seen: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(name, "failed", seen, advice)


def mistaken(name: str, error: UserError | StepError) -> Finding:
    """What an error's sentence says; its way out stands behind the last semicolon."""
    seen, semicolon, advice = str(error).rpartition("; ")
    return failed(name, seen, advice) if semicolon else failed(name, advice, "")


def examine(checks: Sequence[Check], seconds: float) -> list[Finding]:
    """Looks at everything at once, and waits so many seconds at most; the findings come in the order of the checks."""
    found: dict[int, Sequence[Finding] | BaseException] = {}

    def look(number: int, check: Check) -> None:
        try:
            found[number] = check.look()
        except (UserError, StepError) as error:
            found[number] = [mistaken(check.name, error)]
        except BaseException as bug:
            found[number] = bug

    # Daemons: what hangs, hangs alone, and does not keep the process from ending.
    threads = [threading.Thread(target=look, args=numbered, daemon=True) for numbered in enumerate(checks)]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [finding for number, check in enumerate(checks) for finding in _findings(check, found.get(number), seconds)]


def _findings(check: Check, found: Sequence[Finding] | BaseException | None, seconds: float) -> Sequence[Finding]:
    if isinstance(found, BaseException):
        raise found
    late = failed(check.name, f"no answer within {seconds:.0f} s", "see whether a proxy or a firewall is in the way")
    return [late] if found is None else found
