"""Schedules as code: from a timetable to recurring runs on the server, and back to what has to change.

KFP cannot change a recurring run (kubeflow/pipelines #3789), and deleting one kills its run in progress (#7421). So a
schedule is a name under which one *generation* after the other lives on the server. Each says in its description which
schedule it is of and, as a digest, what it does. To change a schedule is to replace its generation:

    disable the old one  ->  create the new one, enabled  ->  when no run of the old one goes on: delete it

What has to be done follows from what is there, listed afresh before each step, so that `apply` may be killed anywhere
and called again, and two at once help each other. No lock is needed:

- The old generations are disabled before a new one is created. KFP's controller counts ticks from the creation on
  (crd/controller/scheduledworkflow/util/cron_schedule.go), so that no tick is fired by both.
- Of two that do the same, the enabled one stays. Of two enabled ones it is the one that was created first, else the one
  of the lower ID; of two disabled ones the newer, which may have fired ticks of which the older one does not know.
- A disabled one that does the right thing is taken up again only if it is the newest. An older one, enabled, would make
  up for a tick that its successor has fired already.
- Only a generation that is disabled, has no run and can get none any more is deleted: then it does not matter whether
  the server knows how to leave runs alone (it does from 2.16 on).
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from kfp_server_api import (
    V2beta1CronSchedule,
    V2beta1PipelineVersionReference,
    V2beta1RecurringRun,
    V2beta1Run,
    V2beta1RuntimeConfig,
    V2beta1Trigger,
)

from components.step import UserError, choose
from pipelines import cron
from pipelines.generations import MARK, Generation, Wanted, age, current, everything, generations, wanted
from pipelines.kubeflow import Kubeflow, NotFound, Predicate, ServerError
from pipelines.runs import ACTIVE
from pipelines.timetable import Timetable

QUIET_SECONDS = 90.0
"""How long after a tick, at most, its run is to be seen: the controller looks every 30 s, the persistence agent too."""

LOOKS = (0.2, 1.0, 3.0)
"""Seconds before each look for a generation whose creation got no answer."""

PAUSES = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each round. More than three are needed only while another apply is at work: it is left to end."""

Action = Literal["create", "replace", "enable", "disable", "retire", "unchanged"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What has to happen to a schedule, or to one of its old generations (`retire`)."""

    action: Action
    name: str
    wanted: Wanted | None = None
    kept: Generation | None = None  # the generation that does it, or that is retired
    old: tuple[Generation, ...] = ()  # those that a new one replaces
    differences: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # before, after
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Done:
    """One thing that `apply` did, or left for a later one."""

    name: str
    text: str
    id: str


# What has to change


def plan(wanted: Mapping[str, Wanted], existing: Sequence[Generation]) -> list[Change]:
    """What has to change so that what exists does what is wanted; in the order in which it is to be done."""
    changes = []
    for name in sorted({*wanted, *(one.name for one in existing)}):
        changes += _changes(name, wanted.get(name), [one for one in existing if one.name == name])
    return changes


def _changes(name: str, wanted: Wanted | None, found: list[Generation]) -> list[Change]:
    """The changes of one schedule: what is old is disabled before something new begins."""
    kept = _kept(wanted, found) if wanted else None
    if wanted and kept is None:
        return [_new(name, wanted, found)]
    old = sorted((one for one in found if one is not kept), key=lambda one: (not one.enabled, age(one)))
    retired = [Change(action="retire", name=name, kept=one, notes=_retiring(one)) for one in old]
    return retired + ([_switched(name, wanted, kept)] if wanted and kept else [])


def _kept(wanted: Wanted, found: Sequence[Generation]) -> Generation | None:
    """The generation that does what is wanted and may go on doing it."""
    same = sorted((one for one in found if one.digest == wanted.digest), key=age)
    enabled = [one for one in same if one.enabled]
    others = [one for one in found if one.digest != wanted.digest]
    newest = [one for one in reversed(same) if all(one.created > other.created for other in others)]
    return next(iter([*enabled, *newest]), None)


def _new(name: str, wanted: Wanted, found: Sequence[Generation]) -> Change:
    notes = [remark] if (remark := cron.remark(wanted.schedule.cron)) else []
    before = current(found)
    if before is None:
        return Change(action="create", name=name, wanted=wanted, notes=tuple(notes))
    after = wanted.facts
    names = [name for name in (*after, *before.facts) if before.facts.get(name) != after.get(name)]
    differences = {name: (before.facts.get(name), after.get(name)) for name in dict.fromkeys(names)}
    if before.pipeline != wanted.pipeline and "pipeline_version" not in differences:
        differences["pipeline_version"] = (f"{before.version}, uploaded before", f"{before.version}, uploaded again")
    if not before.enabled and wanted.schedule.enabled is None:
        notes.append("was paused and will be enabled; `enabled: false` keeps it paused")
    return Change(
        action="replace", name=name, wanted=wanted, old=tuple(found), differences=differences, notes=tuple(notes)
    )


def _switched(name: str, wanted: Wanted, kept: Generation) -> Change:
    """The change of a schedule whose generation stays: on or off, or nothing."""
    wish = wanted.schedule.enabled
    common: dict[str, Any] = {"name": name, "wanted": wanted, "kept": kept}
    if wish is None or wish == kept.enabled:
        notes = () if kept.enabled or wish is False else ("paused, and stays so without `enabled: true`",)
        return Change(action="unchanged", notes=notes, **common)
    missed = "the ticks" if kept.catch_up else "the last tick"
    notes = (f"if one was missed, KFP makes up for {missed} at once",) if wish else ()
    return Change(
        action="enable" if wish else "disable", differences={"enabled": (kept.enabled, wish)}, notes=notes, **common
    )


def _retiring(one: Generation) -> tuple[str, ...]:
    first = "disabled, then deleted" if one.enabled else "deleted"
    return (f"{first} when no run of it is in progress",)


# Making it so


@dataclass(kw_only=True)
class Room:
    """An experiment in which schedules are changed."""

    client: Kubeflow
    experiment_id: str
    zone: tzinfo
    quiet: float = QUIET_SECONDS
    looks: tuple[float, ...] = LOOKS
    seen_disabled: dict[str, float] = field(default_factory=dict)  # by generation, on the monotonic clock
    busy: set[str] = field(default_factory=set)  # the disabled generations that have a run in progress

    def generations(self, name: str = "") -> list[Generation]:
        found = generations(self.client, self.experiment_id, name)
        for one in found:
            if one.enabled:
                self.seen_disabled.pop(one.id, None)
            else:
                self.seen_disabled.setdefault(one.id, time.monotonic())
        return found

    def changes(self, wishes: Mapping[str, Wanted]) -> list[Change]:
        """What is left to do."""
        found = plan(wishes, self.generations())
        return [one for one in found if one.action != "unchanged" and not (one.kept and one.kept.id in self.busy)]

    def perform(self, change: Change) -> Iterator[Done]:
        """Makes a change as far as it can be made now; yields nothing where it has to wait."""
        if change.action in ("create", "replace"):
            yield from self.start(change)
        elif change.kept and change.action == "retire" and not change.kept.enabled:
            yield from self.remove(change.kept)
        elif change.kept:
            yield from self.switch(change.kept, on=change.action == "enable")

    def switch(self, one: Generation, *, on: bool) -> Iterator[Done]:
        """Enables or disables a generation; one that another has deleted meanwhile is as good as disabled."""
        try:
            (self.client.enable if on else self.client.disable)(one.id)
        except NotFound:
            if on:
                raise
        yield Done(name=one.name, text="enabled" if on else "disabled", id=one.id)

    def start(self, change: Change) -> Iterator[Done]:
        """Disables the old generations of a schedule and creates a new one; where that is refused all is as before."""
        assert change.wanted
        enabled = [one for one in change.old if one.enabled]
        # Nothing is said in between: who listens might go away.
        disabled = [done for one in enabled for done in self.switch(one, on=False)]
        try:
            self.create(change.wanted)
        except (UserError, ServerError) as error:
            self.repair(change, enabled, error)
        yield from disabled
        made = self.generations(change.name)
        kept = _kept(change.wanted, made)
        yield Done(name=change.name, text=f"{change.action}d", id=kept.id if kept else "")
        # Another apply may have created the same at this moment: its twin shall not see a tick.
        for twin in made:
            if kept and twin.enabled and twin.id != kept.id:
                yield from self.switch(twin, on=False)

    def create(self, wanted: Wanted) -> None:
        schedule = wanted.schedule
        pipeline_id, version_id = wanted.pipeline
        self.client.create_recurring_run(
            V2beta1RecurringRun(
                display_name=schedule.name,
                description=f"{MARK} {schedule.name} {wanted.digest} {schedule.pipeline_version}; made by retrain",
                experiment_id=self.experiment_id,
                mode="DISABLE" if schedule.enabled is False else "ENABLE",
                max_concurrency=str(schedule.concurrency),
                no_catchup=not schedule.catch_up,
                trigger=V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=schedule.kfp_cron)),
                pipeline_version_reference=V2beta1PipelineVersionReference(
                    pipeline_id=pipeline_id, pipeline_version_id=version_id or None
                ),
                runtime_config=V2beta1RuntimeConfig(parameters=schedule.arguments),
                service_account=wanted.service_account,
            )
        )

    def repair(self, change: Change, disabled: Sequence[Generation], error: UserError | ServerError) -> None:
        """After a creation that failed: enables what was disabled for it and raises, unless it is there after all."""
        try:
            if getattr(error, "lost", False) and self.appeared(change):
                return
            for one in disabled:
                self.client.enable(one.id)
        except (UserError, ServerError):
            if disabled:
                raise type(error)(f"{error}; schedule {change.name!r} is disabled until you apply again") from None
        raise error

    def appeared(self, change: Change) -> bool:
        """Whether a generation whose creation got no answer was created all the same."""
        before = {one.id for one in change.old}
        for pause in self.looks:
            time.sleep(pause)
            new = [one for one in self.generations(change.name) if one.id not in before]
            if any(change.wanted and one.digest == change.wanted.digest for one in new):
                return True
        return False

    def remove(self, one: Generation) -> Iterator[Done]:
        """Deletes a disabled generation; not while a run of it goes on, and not before there can be none."""
        if self.runs(one, Predicate("state", "IN", ACTIVE)):
            self.busy.add(one.id)
            yield Done(name=one.name, text="the old one's run is in progress; a later apply deletes it", id=one.id)
        elif self.settled(one):
            self.client.delete_recurring_run(one.id)
            yield Done(name=one.name, text="the old one deleted", id=one.id)

    def settled(self, one: Generation) -> bool:
        """Whether a disabled generation cannot have a run that the server does not show yet.

        The controller notices a tick, and the persistence agent the run, some time after it. A generation that has
        been disabled for that long, or had no tick, nor the end of a run for which a tick waited, has none.
        """
        if self.unsettled_seconds(one) <= 0:
            return True
        now = datetime.now(UTC)
        since = now - timedelta(seconds=self.quiet)
        tick = next(cron.times(cron.parse(one.kfp_cron), since, self.zone), None)
        if tick and tick.astimezone(UTC) <= now:
            return False
        return not self.runs(one, Predicate("finished_at", "GREATER_THAN_EQUALS", since))

    def unsettled_seconds(self, one: Generation) -> float:
        """When a disabled generation is settled, whatever its ticks were."""
        return self.seen_disabled.get(one.id, time.monotonic()) + self.quiet - time.monotonic()

    def runs(self, one: Generation, predicate: Predicate) -> int:
        """How many runs of a generation there are of which this is so."""
        mine = Predicate("recurring_run_id", "EQUALS", one.id)
        return self.client.count_runs(experiment_id=self.experiment_id, predicates=[mine, predicate])


def look(client: Kubeflow, timetable: Timetable) -> list[Change]:
    """What has to change on the server; changes nothing there."""
    wishes = wanted(client, timetable)
    experiment = client.find_experiment(timetable.experiment, client.namespace)
    return plan(wishes, generations(client, experiment.experiment_id) if experiment else [])


def apply(
    client: Kubeflow, timetable: Timetable, *, quiet: float = QUIET_SECONDS, looks: tuple[float, ...] = LOOKS
) -> Iterator[Done]:
    """Makes the server do what the timetable says, round by round until there is nothing left to do.

    An old generation whose run is in progress is left disabled; the next apply deletes it. Raises UserError before
    anything is changed where the timetable does not fit the server.
    """
    wishes = wanted(client, timetable)
    experiment = client.experiment(timetable.experiment, client.namespace)
    room = Room(client=client, experiment_id=experiment.experiment_id, zone=timetable.zone, quiet=quiet, looks=looks)
    for pause in PAUSES:
        time.sleep(pause)
        changes = room.changes(wishes)
        if not changes:
            return
        idle = True
        for change in changes:
            for done in room.perform(change):
                idle = False
                yield done
        if idle:
            yield from _wait(room, [change.kept for change in changes if change.kept])
    raise ServerError(f"experiment {timetable.experiment!r} keeps changing: another apply is at work; apply again")


def _wait(room: Room, unsettled: Sequence[Generation]) -> Iterator[Done]:
    """Waits until the generations that are left can be deleted."""
    seconds = max(0.0, *(room.unsettled_seconds(one) for one in unsettled))
    for one in unsettled:
        text = f"a tick of the old one was due just now; it is deleted in {seconds:.0f} s, or by a later apply"
        yield Done(name=one.name, text=text, id=one.id)
    time.sleep(seconds)


# By hand


def find(client: Kubeflow, timetable: Timetable, name: str) -> list[Generation]:
    """The generations of a schedule that is on the server. Raises UserError."""
    found = everything(client, timetable)
    if not found:
        where = f"experiment {timetable.experiment!r} of the server"
        raise UserError(f"{where} has no schedules; make them with `retrain schedule apply`")
    choose("schedule", name, sorted({one.name for one in found}))
    return [one for one in found if one.name == name]


def pause(client: Kubeflow, timetable: Timetable, name: str) -> bool:
    """Disables a schedule; its run in progress goes on. Returns whether it was enabled."""
    enabled = [one for one in find(client, timetable, name) if one.enabled]
    for one in enabled:
        client.disable(one.id)
    return bool(enabled)


def resume(client: Kubeflow, timetable: Timetable, name: str) -> bool:
    """Enables a schedule. Returns whether it was paused."""
    one = current(find(client, timetable, name))
    if one is None or one.enabled:
        return False
    client.enable(one.id)
    return True


def trigger(client: Kubeflow, timetable: Timetable, name: str) -> V2beta1Run:
    """Starts the run that the schedule's next tick would start, on its own: it does not go with the schedule."""
    one = current(find(client, timetable, name))
    assert one
    pipeline_id, version_id = one.pipeline
    return client.create_run(
        V2beta1Run(
            run_id=str(uuid.uuid4()),
            display_name=f"{name} {datetime.now():%Y-%m-%d %H:%M:%S}",
            description=f"retrain schedule {name}, triggered by hand",
            experiment_id=one.experiment_id,
            pipeline_version_reference=V2beta1PipelineVersionReference(
                pipeline_id=pipeline_id, pipeline_version_id=version_id or None
            ),
            runtime_config=V2beta1RuntimeConfig(parameters=one.parameters),
            service_account=one.service_account,
        )
    )
