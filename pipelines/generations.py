"""What a schedule is on the server: one recurring run after the other, and what each of them does."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kfp_server_api import V2beta1RecurringRun

from components.step import UserError
from pipelines.kubeflow import Kubeflow, Predicate
from pipelines.submit import LATEST, find_version
from pipelines.timetable import Schedule, Timetable

MARK = "retrain schedule"
MARKED = re.compile(rf"{MARK} (?P<name>[a-z0-9-]+) (?P<digest>[0-9a-f]{{16}}) (?P<version>.+); made by retrain$")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A recurring run on the server that `apply` made."""

    id: str
    name: str  # of its schedule
    digest: str  # of what it does
    version: str  # of the pipeline, by the name that it had when this was made
    enabled: bool
    created: datetime
    kfp_cron: str
    parameters: dict[str, Any]
    concurrency: int
    catch_up: bool
    service_account: str
    experiment_id: str
    pipeline: tuple[str, str]  # IDs of the pipeline and of its version; the latter empty for the latest

    @property
    def facts(self) -> dict[str, Any]:
        """What it does, in the words of the timetable."""
        unix = self.kfp_cron.removeprefix("0 ")
        names = ("pipeline_version", "concurrency", "catch_up", "service_account")
        values = (self.version, self.concurrency, self.catch_up, self.service_account)
        return {"cron": unix, **dict(zip(names, values, strict=True)), **self.parameters}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A schedule of the timetable, its pipeline's version looked up."""

    schedule: Schedule
    service_account: str
    pipeline: tuple[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """What it shall do, comparable with a generation's."""
        schedule = self.schedule
        return {
            "cron": schedule.kfp_cron.removeprefix("0 "),
            "pipeline_version": schedule.pipeline_version,
            "concurrency": schedule.concurrency,
            "catch_up": schedule.catch_up,
            "service_account": self.service_account,
            **schedule.arguments,
        }

    @property
    def digest(self) -> str:
        """The same for what does the same; whether it is enabled is no part of it."""
        content = json.dumps([self.facts, self.pipeline], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def generation(run: V2beta1RecurringRun) -> Generation | None:
    """The generation that a recurring run is; None where `apply` did not make it."""
    mark = MARKED.match(run.description or "")
    trigger = run.trigger and run.trigger.cron_schedule
    # A copy made in the UI has the description, but a name of its own.
    if mark is None or mark["name"] != run.display_name or not trigger:
        return None
    reference = run.pipeline_version_reference
    return Generation(
        id=run.recurring_run_id,
        name=mark["name"],
        digest=mark["digest"],
        version=mark["version"],
        enabled=run.status == "ENABLED",
        created=run.created_at,
        kfp_cron=trigger.cron,
        parameters=dict((run.runtime_config and run.runtime_config.parameters) or {}),
        concurrency=int(run.max_concurrency or 1),
        catch_up=not run.no_catchup,
        service_account=run.service_account or "",
        experiment_id=run.experiment_id or "",
        pipeline=((reference and reference.pipeline_id) or "", (reference and reference.pipeline_version_id) or ""),
    )


def generations(client: Kubeflow, experiment_id: str, name: str = "") -> list[Generation]:
    """All generations in an experiment, or those of one schedule; a request for each 200 of them."""
    mine = Predicate("description", "IS_SUBSTRING", f"{MARK} {name} " if name else f"{MARK} ")
    found = map(generation, client.recurring_runs(experiment_id=experiment_id, predicates=[mine]))
    return [one for one in found if one and name in ("", one.name)]


def current(found: Sequence[Generation]) -> Generation | None:
    """Of a schedule's generations the one in force: that is enabled, or else the newest."""
    return min((one for one in found if one.enabled), key=age, default=max(found, key=age, default=None))


def age(one: Generation) -> tuple[datetime, str]:
    return one.created, one.id


def everything(client: Kubeflow, timetable: Timetable) -> list[Generation]:
    """All generations in the timetable's experiment."""
    experiment = client.find_experiment(timetable.experiment, client.namespace)
    return generations(client, experiment.experiment_id) if experiment else []


def wanted(client: Kubeflow, timetable: Timetable) -> dict[str, Wanted]:
    """The timetable's schedules by name. Raises UserError where the server lacks what they name."""
    versions = {name: find_version(client, name) for name in {one.pipeline_version for one in timetable.schedules}}
    found = {}
    for schedule in timetable.schedules:
        version = versions[schedule.pipeline_version]
        _check_parameters(schedule, version.pipeline_spec or {})
        version_id = "" if schedule.pipeline_version == LATEST else version.pipeline_version_id
        found[schedule.name] = Wanted(
            schedule=schedule,
            service_account=timetable.service_account,
            pipeline=(version.pipeline_id, version_id),
        )
    return found


def _check_parameters(schedule: Schedule, specification: Mapping[str, Any]) -> None:
    """Raises UserError where this code knows a parameter that the pipeline's version on the server does not have."""
    root = specification.get("pipeline_spec", specification).get("root", {})
    known = root.get("inputDefinitions", {}).get("parameters", {})
    for name in schedule.arguments:
        if known and name not in known:
            raise UserError(
                f"schedule {schedule.name!r}: pipeline_version {schedule.pipeline_version!r} on the server has no "
                f"parameter {name!r}; upload this code's with `retrain upload`, or name another version"
            )
