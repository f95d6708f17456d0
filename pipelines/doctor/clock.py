"""How far this machine's clock is from another's."""

import time
from email.utils import parsedate_to_datetime

from pipelines.doctor.finding import Finding, failed, ok, warning

LEEWAY_SECONDS = 60
"""What Kubernetes forgives when it checks a token's times."""

REFUSED_SECONDS = 15 * 60
"""From here on S3 refuses a signed request: RequestTimeTooSkewed."""


def skew(date: str) -> float:
    """Seconds by which this machine is ahead of the `Date` header (RFC 9110, section 6.6.1) that just arrived."""
    return time.time() - parsedate_to_datetime(date).timestamp()


def judge(name: str, seconds: float, whose: str) -> Finding:
    """What a difference between the two clocks means."""
    seen = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {whose}"
    if abs(seconds) > REFUSED_SECONDS:
        return failed(name, seen, "set this machine's clock (NTP): signed requests and tokens are refused")
    if abs(seconds) > LEEWAY_SECONDS:
        return warning(name, seen, "set this machine's clock (NTP): tokens may count as expired or not yet valid")
    return ok(name, seen if abs(seconds) >= 2 else f"agrees with {whose}")
