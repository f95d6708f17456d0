"""What a difference between two clocks means."""

import time
from email.utils import formatdate

import pytest

from pipelines.doctor import clock


def test_the_skew_is_what_this_machine_is_ahead() -> None:
    assert clock.skew(formatdate(time.time() - 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert clock.skew(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(-100, abs=2)


@pytest.mark.parametrize(
    ("seconds", "state", "seen"),
    [
        (0.4, "ok", "agrees with the server"),
        (-59, "ok", "59 s behind the server"),
        (61, "warning", "61 s ahead of the server"),
        (-901, "failed", "901 s behind the server"),
    ],
)
def test_the_larger_the_skew_the_worse(seconds: float, state: str, seen: str) -> None:
    found = clock.judge("clock", seconds, "the server")
    assert (found.state, found.seen) == (state, seen)
    assert ("NTP" in found.advice) == (state != "ok")
