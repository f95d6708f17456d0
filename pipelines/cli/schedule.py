"""`retrain schedule`: plan, apply, list, pause, resume, trigger, next."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.cluster import cluster_flags

if TYPE_CHECKING:
    from pipelines.generations import Generation
    from pipelines.kubeflow import Kubeflow
    from pipelines.schedules import Change
    from pipelines.timetable import Timetable

FILE = Path("schedules.yaml")

file_flag = click.option(
    "--file", type=click.Path(path_type=Path), default=FILE, show_default=True, help="The schedules; docs/schedules.md."
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

SIGNS = {"create": "+", "replace": "~", "enable": "~", "disable": "~", "retire": "-"}
WORDS = {
    "create": "to create",
    "replace": "to replace",
    "enable": "to enable",
    "disable": "to disable",
    "retire": "to retire",
    "unchanged": "unchanged",
}


@click.group()
def schedule() -> None:
    """Schedules as code: makes the server retrain when schedules.yaml says so."""


@schedule.command()
@file_flag
@json_flag
@cluster_flags
def plan(kubeflow: "Kubeflow", file: Path, as_json: bool) -> None:
    """Shows what apply would change; changes nothing."""
    from pipelines.schedules import look
    from pipelines.timetable import read_timetable

    changes = look(kubeflow, read_timetable(file))
    click.echo(
        json.dumps({"changes": [as_dict(change) for change in changes]}, indent=2) if as_json else shown(changes)
    )


@schedule.command()
@file_flag
@json_flag
@cluster_flags
def apply(kubeflow: "Kubeflow", file: Path, as_json: bool) -> None:
    """Makes it so. May be killed and called again; never ends a run in progress."""
    from pipelines.schedules import apply as apply_timetable
    from pipelines.timetable import read_timetable

    done = []
    try:
        for step in apply_timetable(kubeflow, read_timetable(file)):
            done.append({"name": step.name, "done": step.text, "recurring_run": step.id})
            if not as_json:
                click.echo(f"{step.name}: {step.text}")
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)("interrupted; call it again to finish what is left") from None
    if as_json:
        click.echo(json.dumps({"done": done}, indent=2))
    elif not done:
        click.echo("nothing to do")


@schedule.command(name="list")
@file_flag
@json_flag
@cluster_flags
def list_(kubeflow: "Kubeflow", file: Path, as_json: bool) -> None:
    """Lists the schedules on the server, with their next times."""
    from pipelines.generations import everything

    timetable = timetable_or_default(file)
    found = rows(everything(kubeflow, timetable), timetable)
    if as_json:
        click.echo(json.dumps({"schedules": found}, indent=2))
        return
    titles = {key: key.upper() for key in ("name", "state", "cron", "version", "condition", "next")}
    widths = {key: max(len(row[key]) for row in [titles, *found]) for key in titles}
    for row in [titles, *found]:
        click.echo("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())


@schedule.command()
@click.argument("name")
@file_flag
@cluster_flags
def pause(kubeflow: "Kubeflow", name: str, file: Path) -> None:
    """Disables a schedule until it is resumed; its run in progress goes on."""
    from pipelines.schedules import pause as pause_schedule

    timetable = timetable_or_default(file)
    click.echo(f"{name}: {'paused' if pause_schedule(kubeflow, timetable, name) else 'was paused already'}")
    if any(one.name == name and one.enabled for one in timetable.schedules):
        click.echo(f"{file} says `enabled: true`: the next apply enables it again")


@schedule.command()
@click.argument("name")
@file_flag
@cluster_flags
def resume(kubeflow: "Kubeflow", name: str, file: Path) -> None:
    """Enables a paused schedule. KFP makes up for its last tick at once if that was missed."""
    from pipelines.schedules import resume as resume_schedule

    timetable = timetable_or_default(file)
    click.echo(f"{name}: {'resumed' if resume_schedule(kubeflow, timetable, name) else 'was not paused'}")
    if any(one.name == name and one.enabled is False for one in timetable.schedules):
        click.echo(f"{file} says `enabled: false`: the next apply disables it again")


@schedule.command()
@click.argument("name")
@file_flag
@json_flag
@cluster_flags
def trigger(kubeflow: "Kubeflow", name: str, file: Path, as_json: bool) -> None:
    """Starts now the run that the schedule's next tick would start."""
    from pipelines.schedules import trigger as trigger_schedule

    run = trigger_schedule(kubeflow, timetable_or_default(file), name)
    click.echo(json.dumps({"name": name, "run_id": run.run_id}) if as_json else f"{name}: started run {run.run_id}")


@schedule.command(name="next")
@click.argument("name", required=False)
@click.option("--count", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many times of each.")
@file_flag
@json_flag
def next_(name: str | None, count: int, file: Path, as_json: bool) -> None:
    """Shows when the schedules of the file come next; asks no server."""
    from datetime import UTC, datetime

    from pipelines.cron import next_times
    from pipelines.timetable import read_timetable

    timetable = read_timetable(file)
    chosen = [timetable.schedule(name)] if name else list(timetable.schedules)
    now = datetime.now(UTC)
    enabled = [one for one in chosen if one.enabled is not False]
    times = {one.name: next_times(one.kfp_cron, now, count, timetable.zone) for one in enabled}
    if as_json:
        click.echo(
            json.dumps({name: [time.isoformat() for time in listed] for name, listed in times.items()}, indent=2)
        )
        return
    for one in chosen:
        for time in times.get(one.name, []):
            click.echo(f"{one.name:<24} {time:%Y-%m-%d %H:%M} {timetable.server_timezone}")
        if one.enabled is False:
            click.echo(f"{one.name:<24} disabled")


def timetable_or_default(file: Path) -> "Timetable":
    """The file where there is one; without it, unless it was asked for, the names that are the file's defaults."""
    from pipelines.timetable import Timetable, read_timetable

    return read_timetable(file) if file != FILE or file.exists() else Timetable()


def rows(found: "list[Generation]", timetable: "Timetable") -> list[dict[str, str]]:
    """What is on the server, a row for each generation; `retiring` is one that waits for the end of its run."""
    from datetime import UTC, datetime

    from pipelines.cron import next_times
    from pipelines.generations import current

    now = datetime.now(UTC)
    listed = []
    for one in sorted(found, key=lambda one: (one.name, one.created)):
        in_force = current([other for other in found if other.name == one.name]) is one
        times = next_times(one.kfp_cron, now, 1, timetable.zone) if one.enabled else []
        listed.append(
            {
                "name": one.name,
                "state": "enabled" if one.enabled else "paused" if in_force else "retiring",
                "cron": one.kfp_cron.removeprefix("0 "),
                "version": one.version,
                "condition": str(one.parameters.get("condition", "")),
                "next": f"{times[0]:%Y-%m-%d %H:%M} {timetable.server_timezone}" if times else "",
                "recurring_run": one.id,
            }
        )
    return listed


def shown(changes: "list[Change]") -> str:
    """The plan for people: a line for each change, below it what differs; at the end the counts."""
    lines = []
    for change in changes:
        if change.action != "unchanged":
            lines.append(f"  {SIGNS[change.action]} {change.name}: {change.action}")
        elif change.notes:
            lines.append(f"    {change.name}: unchanged")
        before_after = [(name, text(was), text(now)) for name, (was, now) in change.differences.items()]
        lines += [f"      {name}: {was} -> {now}" for name, was, now in before_after]
        if change.action == "create" and change.wanted:
            lines += [f"      {name}: {text(value)}" for name, value in change.wanted.facts.items()]
        lines += [f"      ({note})" for note in change.notes]
    counts = {action: sum(change.action == action for change in changes) for action in WORDS}
    total = ", ".join(f"{count} {WORDS[action]}" for action, count in counts.items() if count)
    return "\n".join([*lines, total or "no schedules"])


def text(value: Any) -> str:
    """A value as YAML has it; the default where there is none."""
    return "(default)" if value is None else value if isinstance(value, str) else json.dumps(value)


def as_dict(change: "Change") -> dict[str, Any]:
    """A change for programs."""
    generations = [change.kept] if change.kept else list(change.old)
    return {
        "name": change.name,
        "action": change.action,
        "differences": {name: {"before": was, "after": now} for name, (was, now) in change.differences.items()},
        "notes": list(change.notes),
        "recurring_runs": [one.id for one in generations],
    }
