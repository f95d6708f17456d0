"""What goes on on a cluster: the newest runs, what they published, the champion, and what is scheduled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from components.registry import Version
from components.step import UserError
from pipelines import releases
from pipelines.cron import next_times
from pipelines.kubeflow import Kubeflow, Predicate
from pipelines.parameters import PIPELINE
from pipelines.releases import Release, Unreadable
from pipelines.runs import ACTIVE, RunState, get, run_state
from pipelines.submit import address, outcome, verdict

if TYPE_CHECKING:
    from kfp_server_api import V2beta1RecurringRun, V2beta1Run

PAGE = 25
"""Runs a request: the server sends every node of every run along."""
SEARCHED = 200
"""How many of the newest runs are looked through for those of this pipeline."""

AVAILABLE = Predicate("storage_state", "EQUALS", "AVAILABLE")
"""Archived runs are listed too unless this is asked."""


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A recurring run of this pipeline."""

    name: str
    trigger: str  # KFP's cron, seconds first, or `every N s`
    enabled: bool
    next: datetime | None  # as a controller whose clock is in UTC, the default, will start it


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything at a glance. `unreadable` says why champion and releases are not known; empty if they are."""

    runs: tuple[RunState, ...]  # newest first; those in progress even where they are old
    total: int  # of the namespace or the experiment, other pipelines' included
    store: str
    model: str
    champion: Version | None
    releases: Mapping[str, Release]  # by run ID
    unreadable: str
    schedules: tuple[Scheduled, ...]


@dataclass(frozen=True, kw_only=True)
class Closeup:
    """One run and its verdict; `unreadable` says why that is not known."""

    run: RunState
    url: str
    release: Release | None = None
    headline: str = ""
    reasons: tuple[str, ...] = ()
    unreadable: str = ""


def look(client: Kubeflow, *, experiment: str, store: str, model: str, limit: int) -> Overview:
    """Asks the server, at most 20 times, and the store: that of the newest run unless one is given."""
    mine = _pipelines(client)
    experiment_id = _experiment_id(client, experiment)
    runs = tuple(_runs(client, mine, experiment_id, limit))
    newest_store, newest_model = releases.place(runs[0].parameters if runs else {})
    store, model = store or newest_store, model or newest_model
    shelf, unreadable = _shelf(store, model, runs)
    return Overview(
        runs=runs,
        total=client.count_runs(experiment_id=experiment_id, predicates=[AVAILABLE]),
        store=store,
        model=model,
        champion=shelf.champion,
        releases=shelf.runs,
        unreadable=unreadable,
        schedules=tuple(_schedules(client, mine, experiment_id)),
    )


def look_at(client: Kubeflow, run_id: str, store: str) -> Closeup:
    """One run, and what the store has of it: its own store unless one is given. Raises UserError without such a run."""
    run = get(client, run_id)
    url = address(client, run_id)
    if run.state != "SUCCEEDED":
        return Closeup(run=run, url=url)
    try:
        release = outcome(run, store)
        headline, reasons = verdict(run, release, store)
    except Unreadable as error:
        return Closeup(run=run, url=url, unreadable=str(error))
    return Closeup(run=run, url=url, release=release, headline=headline, reasons=tuple(reasons))


def _pipelines(client: Kubeflow) -> set[str]:
    """The IDs under which the pipeline is known: in the user's namespace, and where all namespaces share it."""
    found = [client.pipeline(PIPELINE, namespace) for namespace in dict.fromkeys((client.namespace, ""))]
    return {pipeline.pipeline_id for pipeline in found if pipeline}


def _experiment_id(client: Kubeflow, name: str) -> str | None:
    if not name:
        return None
    found = client.find_experiment(name, client.namespace)
    if found is None:
        raise UserError(f"{client.connection.where} has no experiment {name!r}; leave --experiment out to see all runs")
    return str(found.experiment_id)


def _runs(client: Kubeflow, mine: set[str], experiment_id: str | None, limit: int) -> list[RunState]:
    """The newest runs of the pipeline, and those that are in progress, newest first."""

    def search(most: int, *predicates: Predicate) -> "Iterator[V2beta1Run]":
        found = client.runs(experiment_id=experiment_id, predicates=[AVAILABLE, *predicates], page_size=PAGE)
        return islice((run for run in islice(found, most) if is_mine(run, mine)), limit)

    in_progress = search(2 * PAGE, Predicate("state", "IN", ACTIVE))
    runs = {run.run_id: run for run in (*in_progress, *search(max(SEARCHED, limit)))}
    states = [run_state(run) for run in runs.values()]
    return sorted(states, key=lambda run: run.created or datetime.now(UTC), reverse=True)


def is_mine(run: "V2beta1Run | V2beta1RecurringRun", pipelines: set[str]) -> bool:
    """Whether a run or a schedule is of this pipeline; it may have been made from the YAML, without a version."""
    reference, spec = run.pipeline_version_reference, run.pipeline_spec or {}
    if reference:
        return reference.pipeline_id in pipelines
    name = (spec.get("pipeline_spec") or spec).get("pipelineInfo", {}).get("name")
    return bool(name == PIPELINE)


def _shelf(store: str, model: str, runs: tuple[RunState, ...]) -> tuple[releases.Shelf, str]:
    ended = [run for run in runs if run.state == "SUCCEEDED" and releases.place(run.parameters) == (store, model)]
    since = min((run.created for run in ended if run.created), default=None)
    try:
        return releases.look(store, model, [run.id for run in ended if not run.stopped], since), ""
    except Unreadable as error:
        return releases.Shelf(champion=None, runs={}), str(error)


def _schedules(client: Kubeflow, mine: set[str], experiment_id: str | None) -> list[Scheduled]:
    found = client.recurring_runs(experiment_id=experiment_id)
    scheduled = [_scheduled(recurring) for recurring in found if is_mine(recurring, mine)]
    return sorted(scheduled, key=lambda one: (not one.enabled, one.next or datetime.max.replace(tzinfo=UTC), one.name))


def _scheduled(recurring: "V2beta1RecurringRun") -> Scheduled:
    enabled = recurring.status == "ENABLED"
    cron = recurring.trigger and recurring.trigger.cron_schedule
    periodic = recurring.trigger and recurring.trigger.periodic_schedule
    return Scheduled(
        name=recurring.display_name or "",
        trigger=cron.cron if cron else f"every {periodic.interval_second} s" if periodic else "once",
        enabled=enabled,
        next=_next(cron.cron, cron.start_time, cron.end_time) if enabled and cron else None,
    )


def _next(cron: str, start: datetime | None, end: datetime | None) -> datetime | None:
    now = datetime.now(UTC)
    try:
        times = next_times(cron, max(now, start) if start else now, 1)
    except UserError:  # somebody else's, of a form that this KFP does not have
        return None
    return times[0] if times and (end is None or end.year <= 1970 or times[0] <= end) else None
