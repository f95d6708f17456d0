"""schedules.yaml: when to retrain with which parameters, read strictly.

A key that does not exist, a value of another type, a cron that KFP cannot do: one sentence that names file, schedule,
field and value, before anything is sent anywhere. docs/schedules.md shows a whole file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, available_timezones

import yaml

from components.step import UserError, choose, require
from pipelines import cron
from pipelines.submit import EXPERIMENT, LATEST, Loader, Order, checked

HEAD = ("experiment", "service_account", "server_timezone")
KEYS = ("name", "cron", "timezone", "parameters", "pipeline_version", "enabled", "concurrency", "catch_up", "condition")
CONDITIONS = ("changed", "always")

LONGEST_NAME = 63
MOST_CONCURRENT = 10
"""KFP refuses more (backend/src/apiserver/server/api_converter.go, toModelJob)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One entry of the file, as it is written there."""

    name: str
    cron: str  # of Unix: minute hour day month weekday
    timezone: str = ""  # of the cron; empty: the server's
    parameters: dict[str, Any] = field(default_factory=dict)
    pipeline_version: str = LATEST
    enabled: bool | None = None  # None: as it is on the server; a new one is enabled
    concurrency: int = 1  # how many of its runs at once
    catch_up: bool = False  # whether ticks that were missed are made up for, one by one
    condition: str = "changed"  # or `always`: retrain also where neither data nor code have changed
    kfp_cron: str = ""  # in KFP's six fields and the server's time zone; not in the file

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", self.name) and len(self.name) <= LONGEST_NAME
        require(bool(named), "name", self.name, f"be lowercase letters, digits and '-', at most {LONGEST_NAME} of them")
        require(1 <= self.concurrency <= MOST_CONCURRENT, "concurrency", self.concurrency, "lie between 1 and 10")
        require(
            bool(self.pipeline_version), "pipeline_version", self.pipeline_version, "be a version's name or 'latest'"
        )
        choose("condition", self.condition, CONDITIONS)
        if "condition" in self.parameters:
            raise UserError("parameters must not hold condition; it is a field of the schedule itself")

    @property
    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters as they are sent."""
        return self.parameters | {"condition": self.condition}


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """A whole file. Its schedules own the experiment: what `apply` made in there and is not in the file goes."""

    experiment: str = EXPERIMENT
    service_account: str = Order.service_account
    server_timezone: str = "UTC"
    schedules: tuple[Schedule, ...] = ()

    @property
    def zone(self) -> tzinfo:
        """That of the controller's clock."""
        return zone(self.server_timezone, "server_timezone")

    def schedule(self, name: str) -> Schedule:
        """The schedule of that name. Raises UserError."""
        choose("schedule", name, [schedule.name for schedule in self.schedules])
        return next(schedule for schedule in self.schedules if schedule.name == name)


def read_timetable(path: Path) -> Timetable:
    """Reads and checks a file of schedules. Raises UserError."""
    content = _load(path)
    try:
        head = {key: value for key, value in content.items() if key != "schedules"}
        timetable = Timetable(**_checked(Timetable, head, (*HEAD, "schedules")))
        require(bool(timetable.experiment), "experiment", timetable.experiment, "be a name")
        require(bool(timetable.service_account), "service_account", timetable.service_account, "be a name")
        assert timetable.zone
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    entries = [] if content.get("schedules") is None else content["schedules"]
    if not isinstance(entries, list):
        raise UserError(f"{path}: schedules must be a list, each entry beginning with '- name: ...', not {entries!r}")
    schedules = [_schedule(path, number, entry, timetable) for number, entry in enumerate(entries, start=1)]
    names = [schedule.name for schedule in schedules]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{path}: schedule {name!r}: name must be the only one of its kind, not one of {names.count(name)}"
            )
    return replace(timetable, schedules=tuple(schedules))


class _Loader(Loader):
    """Refuses a key that is given twice, of which YAML's own loader keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]  # `<<: *others` is no key
        keys = [self.construct_object(key, deep=True) for key in given]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"schedules {str(path)!r} cannot be read: {reason}; name the file with --file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(
            f'{path}{where}: this is not YAML: {why}; a text such as a cron needs quotes: cron: "0 3 * * *"'
        ) from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys such as `schedules:`, not {content!r}")
    return content


def _schedule(path: Path, number: int, entry: Any, timetable: Timetable) -> Schedule:
    name = entry.get("name") if isinstance(entry, dict) else None
    try:
        if not isinstance(entry, dict):
            raise UserError(f"it must hold keys such as name and cron, not {entry!r}")
        for key in ("name", "cron"):
            require(key in entry, key, None, "be given")
        schedule = Schedule(**_checked(Schedule, entry, KEYS))
        parameters = checked({str(key): value for key, value in schedule.arguments.items()})
        parameters.pop("condition")
        return replace(schedule, parameters=parameters, kfp_cron=_kfp_cron(schedule, timetable))
    except UserError as error:
        which = repr(name) if isinstance(name, str) else f"number {number}"
        raise UserError(f"{path}: schedule {which}: {error}") from None


_KINDS = {str: "a text (in quotes)", int: "a whole number", bool: "true or false", dict: "names and values"}


def _checked(whole: type, given: Mapping[Any, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What is given for the fields of a dataclass, if it has them and they have these types."""
    types = get_type_hints(whole)
    for key, value in given.items():
        kind = _kind(types[choose("key", str(key), names)])
        require(type(value) is kind, key, value, f"be {_KINDS[kind]}")
    return dict(given)


def _kind(hint: Any) -> type:
    """The type that YAML gives: dict for dict[str, Any], bool for bool | None."""
    found: type = get_args(hint)[0] if isinstance(hint, UnionType) else get_origin(hint) or hint
    return found


def _kfp_cron(schedule: Schedule, timetable: Timetable) -> str:
    """The schedule's cron as the server reads it, by the server's clock. Raises UserError."""
    six = cron.translate(schedule.cron)
    if schedule.timezone in ("", timetable.server_timezone):
        return six
    server, name = timetable.server_timezone, schedule.timezone
    apart = _minutes_apart(zone(name, "timezone"), timetable.zone)
    if apart is None:
        raise UserError(
            f"timezone {name!r} is not always as far from the server's {server!r}, and KFP has one time zone for all "
            f"schedules; write the cron for {server!r}, or give the server {name!r} (docs/schedules.md)"
        )
    moved = cron.moved(schedule.cron, apart)
    if moved is None:
        raise UserError(
            f"cron {schedule.cron!r} of timezone {name!r} cannot be said in the server's {server!r}, where it falls on "
            f"other days; write the cron for {server!r}"
        )
    return cron.translate(moved)


@cache
def _minutes_apart(theirs: tzinfo, ours: tzinfo) -> int | None:
    """By how much our clock is ahead of theirs; None where one of them changes and the other does not do the same."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon + timedelta(days=number) for number in range(2 * 366)]
    offsets = {(day.astimezone(ours).utcoffset(), day.astimezone(theirs).utcoffset()) for day in days}
    if all(our == their for our, their in offsets):
        return 0
    if len(offsets) > 1:
        return None
    our, their = offsets.pop()
    assert our is not None
    assert their is not None
    return round((our - their).total_seconds() / 60)


@cache  # the list of time zones takes long to read
def zone(name: str, key: str) -> tzinfo:
    """A time zone by its name, such as Europe/Berlin. Raises UserError."""
    if name == "UTC":
        return UTC
    known = available_timezones()
    if not known:
        raise UserError(f"{key} {name!r}: this machine has no list of time zones; install it with pip install tzdata")
    if name not in known:
        try:
            choose(key, name, sorted(known))
        except UserError as error:
            near = str(error).partition("(choices")[0].partition("; choices")[0].strip()
            raise UserError(f"{near}; write it as Europe/Berlin or UTC") from None
    return ZoneInfo(name)
