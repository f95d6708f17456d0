"""Cron as KFP's controller reads it, against values worked out by hand and against a search of every minute."""

import random
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from components.step import UserError
from pipelines.cron import moved, next_times, parse, remark, translate

NEW_YORK = ZoneInfo("America/New_York")


def at(text: str, zone: tzinfo = UTC) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("unix", "kfp"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 8-18 * * mon-fri", "0 */15 8-18 * * mon-fri"),
        ("  5   4 1,15 * * ", "0 5 4 1,15 * *"),
        ("@daily", "0 0 0 * * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("0 3 * * 5-7", "0 0 3 * * 0,5,6"),
        ("0 3 * * 1,7", "0 0 3 * * 1,0"),
        ("0 3 * * 1-7/2", "0 0 3 * * 0,1,3,5"),
        ("0 3 * * */7", "0 0 3 * * */7"),
        ("0 3 7 7 *", "0 0 3 7 7 *"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
    ],
)
def test_unix_cron_becomes_six_fields_with_the_seconds_first(unix: str, kfp: str) -> None:
    assert translate(unix) == kfp
    assert len(kfp.split()) == 6


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("", "has 0 fields, not 5"),
        ("0 3 * *", "has 4 fields, not 5"),
        ("0 0 3 * * *", "has 6 fields; write the 5 of Unix cron, without seconds: '0 3 * * *'"),
        ("60 3 * * *", "minute '60' must lie within 0 to 59"),
        ("0 24 * * *", "hour '24' must lie within 0 to 23"),
        ("0 3 0 * *", "day of the month '0' must lie within 1 to 31"),
        ("0 3 * 13 *", "month '13' must lie within 1 to 12"),
        ("0 3 * * 8", "day of the week '8' must lie within 0 to 6"),
        ("0 3 * * sat-sun", "day of the week 'sat-sun' must lie within 0 to 6, and ascend"),
        ("0 18-8 * * *", "hour '18-8' must lie within 0 to 23, and ascend"),
        ("*/0 * * * *", "minute '*/0' has the step 0"),
        ("5/15 * * * *", "minute '5/15' is not the same in every cron; write 5-59/15"),
        ("0 3 L * *", "L, W, # and ? are of other crons"),
        ("0 3 ? * 1", "day of the month '?' is not Unix cron"),
        ("0 3 * * mon#1", "day of the week 'mon#1' is not Unix cron"),
        ("0 3 * * monday", "day of the week 'monday' is not Unix cron"),
        ("0,,5 3 * * *", "minute '' is not Unix cron"),
        ("-5 3 * * *", "minute '-5' is not Unix cron"),
        ("@every 1h", "KFP can do @yearly"),
        ("@reboot", "KFP can do @yearly"),
        ("CRON_TZ=Europe/Berlin 0 3 * * *", "use the field timezone"),
        ("0 0 30 2 *", "may not come for 5 years"),
        ("0 0 31 4,6,9,11 *", "may not come for 5 years"),
        # Both must fit where one has a star: 29 February is not on an even day of the week in 2032.
        ("0 0 29 2 */2", "may not come for 5 years"),
    ],
)
def test_a_cron_that_kfp_cannot_do_is_refused_by_field(cron: str, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        translate(cron)
    assert str(refused.value).startswith(f"cron {cron!r}: ")
    assert reason in str(refused.value)


# From spec_test.go of robfig/cron v1.2.0, with its seconds.
@pytest.mark.parametrize(
    ("now", "cron", "expected"),
    [
        ("2012-07-09T14:45", "0 0/15 * * *", "2012-07-09T15:00"),
        ("2012-07-09T14:59:59", "0 0/15 * * *", "2012-07-09T15:00"),
        ("2012-07-09T15:45", "0 20-35/15 * * *", "2012-07-09T16:20"),
        ("2012-07-09T23:46", "0 */15 * * *", "2012-07-10T00:00"),
        ("2012-07-09T23:45", "0 20-35/15 * * *", "2012-07-10T00:20"),
        ("2012-07-09T23:35:51", "15/35 20-35/15 * * *", "2012-07-10T00:20:15"),
        ("2012-07-09T23:35:51", "15/35 20-35/15 1/2 * *", "2012-07-10T01:20:15"),
        ("2012-07-09T23:35:51", "15/35 20-35/15 10-12 * *", "2012-07-10T10:20:15"),
        ("2012-07-09T23:35:51", "15/35 20-35/15 1/2 */2 * *", "2012-07-11T01:20:15"),
        ("2012-07-09T23:35:51", "15/35 20-35/15 * 9-20 Jul *", "2012-07-10T00:20:15"),
        ("2012-07-09T23:35", "0 0 0 9 Apr-Oct ?", "2012-08-09T00:00"),
        ("2012-07-09T23:35", "0 0 0 */5 Apr,Aug,Oct Mon", "2012-08-06T00:00"),
        ("2012-07-09T23:35", "0 0 0 */5 Oct Mon", "2012-10-01T00:00"),
        ("2012-07-09T23:35", "0 0 0 * Feb Mon", "2013-02-04T00:00"),
        ("2012-07-09T23:35", "0 0 0 * Feb Mon/2", "2013-02-01T00:00"),
        ("2012-12-31T23:59:45", "0 * * * * *", "2013-01-01T00:00:00"),
        ("2012-07-09T23:35", "0 0 0 29 Feb ?", "2016-02-29T00:00"),
        # Both restricted: one suffices. A star in either: both must fit.
        ("2012-07-14T23:59:59", "0 * * 1,15 * Sun", "2012-07-15T00:00"),
        ("2012-06-14T23:59:59", "0 * * 1,15 * Sun", "2012-06-15T00:00"),
        ("2012-07-14T23:59:59", "0 * * */2 * Sun", "2012-07-15T00:00"),
        ("2012-07-14T23:59:59", "0 0 0 */10 * Sun", "2012-10-21T00:00"),
    ],
)
def test_the_next_time_is_that_of_kfps_library(now: str, cron: str, expected: str) -> None:
    assert next_times(cron, at(now), 1) == [at(expected)]


# Clocks change in New York: 2012-03-11 at 2:00 forward, 2012-11-04 at 2:00 back. From spec_test.go too.
@pytest.mark.parametrize(
    ("now", "cron", "expected"),
    [
        ("2012-03-11T00:00:00-05:00", "0 30 2 11 Mar ?", "2013-03-11T02:30:00-04:00"),
        ("2012-03-11T01:00:00-05:00", "0 0 * * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T01:00:00-05:00", "0 0 1 * * ?", "2012-03-12T01:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 0 2 * * ?", "2012-03-12T02:00:00-04:00"),
        ("2012-11-04T00:00:00-04:00", "0 30 2 04 Nov ?", "2012-11-04T02:30:00-05:00"),
        ("2012-11-04T01:45:00-04:00", "0 30 1 04 Nov ?", "2012-11-04T01:30:00-05:00"),
        ("2012-11-04T01:00:00-04:00", "0 0 * * * ?", "2012-11-04T01:00:00-05:00"),
        ("2012-11-04T00:00:00-04:00", "0 0 1 * * ?", "2012-11-04T01:00:00-04:00"),
        ("2012-11-04T01:00:00-04:00", "0 0 1 * * ?", "2012-11-04T01:00:00-05:00"),
        ("2012-11-04T01:00:00-05:00", "0 0 1 * * ?", "2012-11-05T01:00:00-05:00"),
        ("2012-11-04T02:00:00-05:00", "0 0 3 * * ?", "2012-11-04T03:00:00-05:00"),
    ],
)
def test_summer_time_is_kept_as_by_kfps_library(now: str, cron: str, expected: str) -> None:
    (found,) = next_times(cron, datetime.fromisoformat(now), 1, NEW_YORK)
    assert found.astimezone(UTC) == datetime.fromisoformat(expected)
    assert found.utcoffset() == datetime.fromisoformat(expected).utcoffset()


def test_month_ends_and_leap_years_come_when_they_come() -> None:
    def days(cron: str, now: str, count: int) -> list[str]:
        return [f"{time:%Y-%m-%d}" for time in next_times(translate(cron), at(now), count)]

    assert days("0 3 31 * *", "2026-01-01", 4) == ["2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31"]
    assert days("0 3 30 * *", "2026-01-31", 2) == ["2026-03-30", "2026-04-30"]
    assert days("0 0 29 2 *", "2026-01-01", 3) == ["2028-02-29", "2032-02-29", "2036-02-29"]
    assert days("0 3 1 1 *", "2026-01-01T03:00", 2) == ["2027-01-01", "2028-01-01"]
    assert days("0 0 29 2 *", "2096-02-29", 1) == [], "2100 is no leap year, and the library looks five years ahead"


def test_what_never_comes_has_no_next_time() -> None:
    assert next_times("0 0 0 30 2 *", at("2026-01-01"), 1) == []


def test_five_fields_are_read_as_kfp_reads_them_seconds_first() -> None:
    hourly = next_times("0 3 * * *", at("2026-01-01T00:00"), 3)
    assert [f"{time:%H:%M:%S}" for time in hourly] == ["00:03:00", "01:03:00", "02:03:00"]


def searched(cron: str, start: datetime, days: int) -> list[datetime]:
    """Every minute at which a Unix cron fires: by looking at each, with a reading of the fields of its own."""
    names = dict(zip(("sun", "mon", "tue", "wed", "thu", "fri", "sat"), "0123456", strict=True))

    def admits(field: str, value: int, least: int, most: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            low, _, high = (f"{least}-{most}" if span == "*" else span).partition("-")
            first, last = int(names.get(low, low)), int(names.get(high or low, high or low))
            if first <= value <= last and (value - first) % int(step or 1) == 0:
                return True
        return False

    minute, hour, day, month, weekday = cron.split()
    star = day.startswith("*") or weekday.startswith("*")
    clock = [(h, m) for h in range(24) for m in range(60) if admits(hour, h, 0, 23) and admits(minute, m, 0, 59)]
    found = []
    for date in (start + timedelta(days=number) for number in range(days)):
        of_week = (date.weekday() + 1) % 7
        fits = admits(day, date.day, 1, 31), any(admits(weekday, d, 0, 7) for d in {of_week, of_week or 7})
        if admits(month, date.month, 1, 12) and (all(fits) if star else any(fits)):
            found += [date.replace(hour=h, minute=m) for h, m in clock]
    return found


MINUTES = ("0", "*/20", "7,37", "10-50/20", "59", "*/45")
HOURS = ("3", "*", "*/6", "0,23", "22-23", "9-17/4")
DAYS = ("*", "1", "31", "29-31", "*/2", "1,15", "*/10", "1-7")
MONTH_FIELDS = ("*", "2", "*/3", "12,1", "6-8", "11")
WEEKDAYS = ("*", "1", "0", "mon-fri", "*/2", "sun,wed", "7", "5-7")


@pytest.mark.parametrize("seed", range(40))
def test_the_next_times_are_those_that_a_search_of_every_minute_finds(seed: int) -> None:
    random_ = random.Random(seed)
    cron = " ".join(random_.choice(field) for field in (MINUTES, HOURS, DAYS, MONTH_FIELDS, WEEKDAYS))
    start = at("2027-10-20") + timedelta(days=random_.randrange(140))  # over New Year, 2028-02-29 among them
    expected = searched(cron, start, 200)
    found = next_times(translate(cron), start - timedelta(seconds=1), len(expected))
    assert found == expected, cron


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 3 * * *", None),
        ("0 3 1 * *", None),
        ("0 3 13 * 5", "fires on '13' of the month and also on every '5' of the week: cron takes either"),
        ("0 3 */2 * 1", "fires only on days that are both '*/2' of the month and '1' of the week"),
    ],
)
def test_a_day_of_the_month_and_of_the_week_together_are_remarked_on(cron: str, said: str | None) -> None:
    assert remark(cron) == said


@pytest.mark.parametrize(
    ("cron", "minutes", "expected"),
    [
        ("0 3 * * *", -540, "0 18 * * *"),
        ("0 3 * * mon", -540, "0 18 * * 0"),
        ("0 23 * * 5,6", 120, "0 1 * * 0,6"),
        ("15 22 1 * *", 60, "15 23 1 * *"),
        ("*/30 * * * *", 330, "0,30 * * * *"),
        ("0 9-11 * * 1-5", -60, "0 8,9,10 * * 1,2,3,4,5"),
        ("@daily", 345, "45 5 * * *"),
        ("0 3 1 * *", -540, None),  # the last day of the month before
        ("0 3 * 6 *", -540, None),
        ("0 3 1-31 * 1", -540, None),  # every day, since neither has a star
        ("0 0,12 * * 1", -60, None),  # two days of the week
        ("10,50 1,5 * * *", 20, None),  # 1:30, 2:10, 5:30, 6:10 are not hours by minutes
    ],
)
def test_a_cron_is_moved_by_minutes_where_five_fields_can_say_it(cron: str, minutes: int, expected: str | None) -> None:
    assert moved(cron, minutes) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_moved_cron_fires_that_much_later(seed: int) -> None:
    random_ = random.Random(seed)
    cron = " ".join(random_.choice(field) for field in (MINUTES, HOURS, ("*", "*", "1,15"), ("*",), WEEKDAYS))
    minutes = random_.choice([-720, -540, -60, 60, 330, 345, 840])
    later = moved(cron, minutes)
    if later is not None:
        zone = timezone(timedelta(minutes=-minutes))
        start = at("2026-11-23")
        assert next_times(translate(later), start, 200) == next_times(translate(cron), start, 200, zone), cron


def test_stars_count_only_where_a_range_begins_with_them() -> None:
    assert parse("0 0 0 1,*/10 * 1").both
    assert not parse("0 0 0 1-31 * 1").both
