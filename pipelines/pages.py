"""What `retrain status` shows: tables for people, JSON for programs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from components.progress import duration
from pipelines.overview import Closeup, Overview
from pipelines.releases import Release
from pipelines.runs import RunState, StepState


def page(seen: Overview) -> str:
    """The overview for people."""
    blocks = [_champion(seen), _runs(seen), _schedules(seen)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _champion(seen: Overview) -> list[str]:
    if seen.unreadable:
        return [f"champion and verdicts cannot be read from here: {seen.unreadable}"]
    if seen.champion is None:
        return [f"no champion of {seen.model} yet in {seen.store}"]
    facts = seen.champion.facts
    return [f"champion: {seen.model} version {seen.champion.number}, {facts['accuracy']:.2%}, of {facts['created']}"]


def _runs(seen: Overview) -> list[str]:
    if not seen.runs:
        return ["no runs yet; start one with `retrain submit`"]
    rows = [
        (run.id, when(run.created), run.state.lower(), duration(run.seconds), judged(seen, run), steps(run))
        for run in seen.runs
    ]
    counted = [f"{len(rows)} of {seen.total:,} runs"] if seen.total > len(rows) else []
    return table(("RUN", "STARTED", "STATE", "TIME", "VERDICT", "STEPS"), rows) + counted


def _schedules(seen: Overview) -> list[str]:
    rows = [
        (scheduled.name, scheduled.trigger, when(scheduled.next) if scheduled.enabled else "paused")
        for scheduled in seen.schedules
    ]
    return table(("SCHEDULE", "CRON, SECONDS FIRST", "NEXT"), rows) if rows else []


def judged(seen: Overview, run: RunState) -> str:
    """What became of a run's model, in few words."""
    release = seen.releases.get(run.id)
    if release is None:
        return "nothing to do" if run.stopped else ""
    rank = "champion" if release.champion else "accepted" if release.accepted else "rejected"
    return f"{rank}, version {release.version.number}, {release.version.facts['accuracy']:.2%}"


def steps(run: RunState) -> str:
    """The steps that have begun, in few words."""
    return ", ".join(_step(step) for step in run.steps if step.start and step.state != "SKIPPED")


def _step(step: StepState) -> str:
    told = "" if step.state == "SUCCEEDED" else f" {state(step)}"
    return f"{step.name}{told} {duration(step.seconds)}"


def run_page(seen: Closeup) -> str:
    """One run for people."""
    run = seen.run
    rows = [(step.name, state(step), when(step.start), duration(step.seconds)) for step in run.steps]
    unreadable = f"the verdict cannot be read from here: {seen.unreadable}" if seen.unreadable else ""
    blocks = [
        [f"run {run.id}: {run.state.lower()}, {duration(run.seconds)}", run.name, seen.url, run.error],
        table(("STEP", "STATE", "STARTED", "TIME"), rows),
        [unreadable, seen.headline, *(f"  {reason}" for reason in seen.reasons)],
        [f"{name}: {value}" for name, value in sorted(run.parameters.items())],
    ]
    return "\n\n".join("\n".join(filter(None, block)) for block in blocks if any(block))


def state(step: StepState) -> str:
    """A step's state, and how many of its parts are done where that says more."""
    told = step.state.lower()
    return told if step.parts == 1 or step.state == "SUCCEEDED" else f"{told}, {step.done} of {step.parts} done"


def when(time: datetime | None) -> str:
    """A time as all who read the page share it."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if time else ""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    padded = [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    return ["  ".join(row).rstrip() for row in padded]


def facts(seen: Overview) -> dict[str, Any]:
    """The overview for programs."""
    champion = seen.champion
    return {
        "runs": [run_facts(run, seen.releases.get(run.id)) for run in seen.runs],
        "total": seen.total,
        "store": seen.store,
        "champion": {"model": champion.name, "version": champion.number, **champion.facts} if champion else None,
        "unreadable": seen.unreadable or None,
        "schedules": [
            {"name": one.name, "trigger": one.trigger, "enabled": one.enabled, "next": _iso(one.next)}
            for one in seen.schedules
        ],
    }


def closeup_facts(seen: Closeup) -> dict[str, Any]:
    """One run for programs."""
    said = {"url": seen.url or None, "reasons": list(seen.reasons), "unreadable": seen.unreadable or None}
    return run_facts(seen.run, seen.release) | said


def run_facts(run: RunState, release: Release | None) -> dict[str, Any]:
    """A run and what it published, for programs."""
    return {
        "run_id": run.id,
        "name": run.name,
        "state": run.state,
        "created": _iso(run.created),
        "finished": _iso(run.finished),
        "seconds": run.seconds,
        "parameters": run.parameters,
        "recurring_run_id": run.recurring_run_id or None,
        "error": run.error or None,
        "steps": {step.name: {"state": step.state, "seconds": step.seconds} for step in run.steps},
        "release": release.facts() if release else None,
    }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
