"""How findings are gathered."""

import threading
import time
from collections.abc import Sequence

import pytest

from components.step import StepError, UserError
from pipelines.doctor.finding import Check, Finding, examine, ok


def raising(error: Exception) -> Check:
    def look() -> Sequence[Finding]:
        raise error

    return Check("broken", look)


def slow(name: str, seconds: float) -> Check:
    def look() -> Sequence[Finding]:
        time.sleep(seconds)
        return [ok(name, "seen")]

    return Check(name, look)


def test_checks_run_at_once_and_their_findings_keep_their_order() -> None:
    both = threading.Barrier(2, timeout=30)

    def meeting(name: str) -> Check:
        def look() -> Sequence[Finding]:
            both.wait()
            return [ok(name, "seen")]

        return Check(name, look)

    found = examine([meeting("first"), slow("second", 0), meeting("third")], seconds=60)
    assert [finding.name for finding in found] == ["first", "second", "third"]


@pytest.mark.slow
def test_a_check_that_hangs_fails_in_time_and_holds_up_no_other() -> None:
    late, in_time = examine([slow("hangs", 30), slow("quick", 0)], seconds=2)
    assert (late.name, late.state, late.seen) == ("hangs", "failed", "no answer within 2 s")
    assert in_time.state == "ok"


@pytest.mark.parametrize("error", [UserError, StepError])
def test_the_sentence_of_an_error_is_the_finding_and_its_way_out_the_advice(error: type[Exception]) -> None:
    found = examine([raising(error("it is broken; but not much; mend it"))], seconds=10)
    assert found == [Finding("broken", "failed", "it is broken; but not much", "mend it")]
    assert examine([raising(error("it is broken"))], seconds=10) == [Finding("broken", "failed", "it is broken")]


def test_a_bug_in_a_check_is_not_taken_for_a_finding() -> None:
    with pytest.raises(ZeroDivisionError):
        examine([raising(ZeroDivisionError())], seconds=10)
