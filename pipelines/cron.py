"""Cron as Kubeflow Pipelines reads it, and from Unix cron to that.

KFP's controller reads a schedule with robfig/cron v1.2.0: five or six fields, **seconds first**, the day of the week
being the one that may be left out. It takes the five fields of Unix cron too, for something else: `0 3 * * *` is not
"daily at three" but "every hour at minute three". People write Unix cron here; `translate` makes six fields of it.

`parse` and `next_times` do what that library does (github.com/robfig/cron v1.2.0, parser.go and spec.go), its reading
of days and of clocks that are changed for summer included.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice

from components.step import UserError

YEARS = 5
"""How far the library looks for the next time. A schedule without one makes KFP's controller spin, or fire for ever."""

LEAP_CYCLE = 28
"""The years after which dates fall on the same days of the week again."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True)
class Bounds:
    """What a field may hold; `names` stand for the values from `least` on."""

    field: str
    least: int
    most: int
    names: tuple[str, ...] = ()


SECOND = Bounds("second", 0, 59)
UNIX = (
    Bounds("minute", 0, 59),
    Bounds("hour", 0, 23),
    Bounds("day of the month", 1, 31),
    Bounds("month", 1, 12, MONTHS),
    Bounds("day of the week", 0, 6, WEEKDAYS),
)


@dataclass(frozen=True)
class Cron:
    """A schedule: the values that each field admits."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both: bool
    """Whether day of the month and day of the week must both fit (one of them has a star); otherwise one suffices."""

    def on(self, time: datetime) -> bool:
        """Whether it fires on this day, the month aside."""
        day, weekday = time.day in self.days, time.isoweekday() % 7 in self.weekdays
        return day and weekday if self.both else day or weekday


def parse(text: str) -> Cron:
    """Reads a cron of KFP: `second minute hour day month [weekday]`, or a descriptor. Raises UserError."""
    fields = ("0 " + DESCRIPTORS[text] if text in DESCRIPTORS else text).split()
    if len(fields) not in (5, 6):
        raise UserError(f"cron {text!r} has {len(fields)} fields, not the 5 or 6 that KFP reads")
    fields += ["*"] * (6 - len(fields))
    second, minute, hour, day, month, weekday = map(_values, fields, (SECOND, *UNIX))
    both = any(re.match(r"[*?](-|/|$)", part) for field in (fields[3], fields[5]) for part in field.split(","))
    return Cron(second, minute, hour, day, month, weekday, both)


def _values(field: str, bounds: Bounds) -> frozenset[int]:
    """The values of a field: a list of ranges."""
    return frozenset().union(*(_range(part, bounds) for part in field.split(",") if part))


def _range(part: str, bounds: Bounds) -> frozenset[int]:
    span, *steps = part.split("/")
    low, *highs = span.split("-")
    if len(steps) > 1 or (len(highs) > 1 and low not in ("*", "?")):
        raise UserError(f"{bounds.field} {part!r} is no range; write 1-5, */15 or 10-50/20")
    first = bounds.least if low in ("*", "?") else _number(low, bounds)
    last = bounds.most if low in ("*", "?") or (steps and not highs) else _number(highs[0], bounds) if highs else first
    step = _number(steps[0], Bounds("step", 1, bounds.most)) if steps else 1
    if not step:
        raise UserError(f"{bounds.field} {part!r} has the step 0; write 1 or more")
    if not bounds.least <= first <= last <= bounds.most:
        raise UserError(f"{bounds.field} {part!r} must lie within {bounds.least} to {bounds.most}, and ascend")
    return frozenset(range(first, last + 1, step))


def _number(text: str, bounds: Bounds) -> int:
    if text.lower() in bounds.names:
        return bounds.least + bounds.names.index(text.lower())
    if not re.fullmatch(r"\+?[0-9]+", text):
        named = f" or {bounds.names[0]} to {bounds.names[-1]}" if bounds.names else ""
        raise UserError(f"{bounds.field} {text!r} must be a number{named}")
    return int(text)


def translate(text: str) -> str:
    """KFP's six fields for the five of Unix cron, or for `@daily` and its like.

    Raises UserError for what KFP cannot express, for what crons read differently, and for what never comes.
    """
    try:
        fields = _unix_fields(text)
        six = " ".join(["0", *fields[:4], _sunday(fields[4])])
        if not _recurs(parse(six)):
            raise UserError(
                f"may not come for {YEARS} years, and KFP's controller would spin on it; write dates that come"
            )
        return six
    except UserError as error:
        raise UserError(f"cron {text!r}: {error}") from None


def _unix_fields(text: str) -> list[str]:
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise UserError("KFP's cron reads no time zone; use the field timezone")
    if text.startswith("@") and text not in DESCRIPTORS:
        raise UserError(f"KFP can do {', '.join(DESCRIPTORS)}; or write minute hour day month weekday")
    fields = DESCRIPTORS.get(text, text).split()
    if len(fields) == 6:
        raise UserError(f"has 6 fields; write the 5 of Unix cron, without seconds: {' '.join(fields[1:])!r}")
    if len(fields) != 5:
        raise UserError(f"has {len(fields)} fields, not 5: minute hour day month weekday, such as '0 3 * * *'")
    for field, bounds in zip(fields, UNIX, strict=True):
        for part in field.split(","):
            _check_unix(part, bounds)
    return fields


def _check_unix(part: str, bounds: Bounds) -> None:
    value = f"[0-9]+|{'|'.join(bounds.names)}" if bounds.names else "[0-9]+"
    if re.fullmatch(rf"(\*|({value})-({value}))(/[0-9]+)?|{value}", part, re.IGNORECASE):
        return
    if re.fullmatch(rf"({value})/[0-9]+", part, re.IGNORECASE):
        first, step = part.split("/")
        raise UserError(f"{bounds.field} {part!r} is not the same in every cron; write {first}-{bounds.most}/{step}")
    more = "; L, W, # and ? are of other crons" if re.search(r"[LW#?]", part) else ""
    raise UserError(f"{bounds.field} {part!r} is not Unix cron; write a number, 1-5, */15 or 10-50/20{more}")


def _sunday(field: str) -> str:
    """The day of the week with 0 for 7: in Unix cron both are Sunday, KFP knows 0 alone."""
    week = replace(UNIX[4], most=7)
    return ",".join(_days(part, week) if re.search(r"(^|-)7(/|$)", part) else part for part in field.split(","))


def _days(part: str, week: Bounds) -> str:
    return ",".join(map(str, sorted({day % 7 for day in _range(part, week)})))


def _recurs(cron: Cron) -> bool:
    """Whether there is always a next time, however the years fall on the days of the week."""
    if (min(cron.days) <= 28 and len(cron.weekdays) == 7) or len(cron.days) == 31:
        return True
    year = datetime.now(UTC).year
    # The worst moment of a year to look from: the library counts the years from one second later.
    return all(_next(cron, datetime(y, 12, 31, 23, 59, 58, tzinfo=UTC), UTC) for y in range(year, year + LEAP_CYCLE))


def remark(text: str) -> str | None:
    """What may surprise in a Unix cron that restricts both the day of the month and the day of the week."""
    _, _, day, _, weekday = DESCRIPTORS.get(text, text).split()
    if day == "*" or weekday == "*":
        return None
    if parse(translate(text)).both:
        return f"fires only on days that are both {day!r} of the month and {weekday!r} of the week"
    return f"fires on {day!r} of the month and also on every {weekday!r} of the week: cron takes either"


def moved(text: str, minutes: int) -> str | None:
    """The Unix cron that fires `minutes` later than `text`, all the year; None where five fields cannot say it."""
    cron = parse(translate(text))
    moments = {divmod(60 * hour + minute + minutes, 24 * 60) for hour in cron.hours for minute in cron.minutes}
    shifts = {shift for shift, _ in moments}
    hours, ends = {time // 60 for _, time in moments}, {time % 60 for _, time in moments}
    if {time for _, time in moments} != {60 * hour + minute for hour in hours for minute in ends}:
        return None
    _, _, day, month, weekday = DESCRIPTORS.get(text, text).split()
    if len(shifts) == 1 and (day, month) == ("*", "*") and weekday != "*":
        weekday = _listed({(known + min(shifts)) % 7 for known in cron.weekdays}, 7)
    elif shifts != {0} and (day, month, weekday) != ("*", "*", "*"):
        return None
    return f"{_listed(ends, 60)} {_listed(hours, 24)} {day} {month} {weekday}"


def _listed(values: set[int], all_of_them: int) -> str:
    return "*" if len(values) == all_of_them else ",".join(map(str, sorted(values)))


def next_times(cron: str, now: datetime, count: int, zone: tzinfo = UTC) -> list[datetime]:
    """The next times after `now` at which KFP's controller, whose clock is in `zone`, fires a cron of KFP.

    Fewer than `count` where none comes within YEARS of the one before.
    """
    return list(islice(times(parse(cron), now, zone), count))


def times(cron: Cron, now: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
    """Every time after `now`, one after the other."""
    time = _next(cron, now, zone)
    while time:
        yield time
        time = _next(cron, time, zone)


def _next(cron: Cron, after: datetime, zone: tzinfo) -> datetime | None:
    """The first time after `after`; as in spec.go, field by field from the month down.

    Once a field has moved, those below it start from their least value: `fresh`.
    """
    time = (after.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)).astimezone(zone)
    last_year, fresh = time.year + YEARS, False
    while time.year <= last_year:
        time, fresh, wrapped = _field_by_field(cron, time, zone, fresh)
        if not wrapped:
            return time
    return None


def _field_by_field(cron: Cron, time: datetime, zone: tzinfo, fresh: bool) -> tuple[datetime, bool, bool]:
    """One pass over the fields; it is wrapped where a field came to its end and the pass has to be made again."""
    while time.month not in cron.months:
        time, fresh = _date(zone, time.year, time.month, 1) if not fresh else time, True
        time = _date(zone, time.year, time.month + 1, time.day, time.hour, time.minute, time.second)
        if time.month == 1:
            return time, fresh, True
    while not cron.on(time):
        time, fresh = _date(zone, time.year, time.month, time.day) if not fresh else time, True
        time = _date(zone, time.year, time.month, time.day + 1, time.hour, time.minute, time.second)
        if time.day == 1:
            return time, fresh, True
    for unit, admitted, step in (
        ("hour", cron.hours, timedelta(hours=1)),
        ("minute", cron.minutes, timedelta(minutes=1)),
        ("second", cron.seconds, timedelta(seconds=1)),
    ):
        while getattr(time, unit) not in admitted:
            time, fresh = _floor(time, unit, zone, fresh), True
            time = (time.astimezone(UTC) + step).astimezone(zone)
            if getattr(time, unit) == 0:
                return time, fresh, True
    return time, fresh, False


def _floor(time: datetime, unit: str, zone: tzinfo, fresh: bool) -> datetime:
    """The time with what lies below the unit set to zero, the first time that a field moves."""
    if fresh or unit == "second":
        return time
    if unit == "minute":
        return time.replace(second=0)
    return _date(zone, time.year, time.month, time.day, time.hour)


def _date(zone: tzinfo, year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """The moment at which a clock in `zone` shows this; day and month may go beyond their end.

    Where it is shown never or twice, the moment that Go's time.Date gives.
    """
    first = datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, hour, minute, second, tzinfo=UTC)
    shown = first + timedelta(days=day - 1)
    return (shown - _offset(shown - _offset(shown, zone), zone)).astimezone(zone)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
