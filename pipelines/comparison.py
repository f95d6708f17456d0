"""What a run's model is, beside the champion that people use, in Markdown: for the summary of a CI job.

    python -m pipelines.comparison REPORT PARAMETERS MODEL

REPORT is what `retrain submit --wait --json` printed. The champion is where the run for good publishes: PARAMETERS is
the file with that run's parameters, MODEL another name than they give; '' where there is none. The exit code is 1 where
the run succeeded and its verdict cannot be read from here: nobody should take that for a good one.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.registry import Version
from components.step import UserError
from pipelines import releases
from pipelines.releases import Release, Unreadable
from pipelines.submit import read_parameters

FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "onnx_bytes": "ONNX file, bytes",
    "milliseconds_per_image": "ms an image",
}
"""The facts of a version that are compared, and their names for people."""

SHARES = ("accuracy", "macro_f1")

MARKS = {"SUCCEEDED": "✓", "FAILED": "✗", "SKIPPED": "·"}


def summarize(report: Mapping[str, Any], parameters: str, model: str) -> str:
    """The run, its steps, its verdict, and its figures beside those of the champion."""
    sections = [heading(report), steps(report.get("steps") or {})]
    if report["state"] == "SUCCEEDED":
        sections += judged(report, parameters, model)
    return "\n\n".join(section for section in sections if section) + "\n"


def heading(report: Mapping[str, Any]) -> str:
    """Which run it is, and how it stands."""
    run = f"[{report['run_id']}]({report['url']})" if report["url"] else f"`{report['run_id']}`"
    state = (report["state"] or "started").lower()
    return f"## Run {run}: {state}\n\nPipeline version `{report['pipeline_version']}`"


def steps(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Each step with its state and time."""
    if not found:
        return ""
    rows = [
        f"| {name} | {MARKS.get(step['state'], '')} {step['state'].lower()} | {seconds(step['seconds'])} |"
        for name, step in found.items()
    ]
    return "\n".join(["| step | state | time |", "|---|---|---:|", *rows])


def seconds(count: float | None) -> str:
    """A time for people."""
    return "" if count is None else f"{count:,.0f} s"


def judged(report: Mapping[str, Any], parameters: str, model: str) -> Sequence[str]:
    """The verdict, with its reasons, and the comparison."""
    if report["steps"]["export"]["state"] == "SKIPPED":
        return ["There was no reason to retrain: neither the data nor the code changed since the champion."]
    store, name = releases.place(report["parameters"])
    try:
        release = releases.look(store, name, [report["run_id"]], None).runs.get(report["run_id"])
        if release is None:
            raise Unreadable(f"store {store} has no version of model {name!r} that this run published")
        reasons = releases.verdict(store, release.version)["reasons"]
    except Unreadable as error:
        return [f"**The verdict cannot be read from here**: {error}"]
    return [
        decided(release),
        "\n".join(f"- {reason}" for reason in reasons),
        beside(release.version, parameters, model),
    ]


def decided(release: Release) -> str:
    """What was decided."""
    state = "champion" if release.champion else "accepted" if release.accepted else "rejected"
    return f"**{release.version.name} version {release.version.number}: {state}**"


def beside(version: Version, parameters: str, model: str) -> str:
    """The figures beside those of the champion, whose store is often not that of a canary."""
    try:
        store, own = releases.place(read_parameters(Path(parameters)) if parameters else {})
        champion = releases.look(store, model or own, [], None).champion
    except (UserError, Unreadable) as error:
        return f"**The champion cannot be read from here**: {error}"
    return compared(version, champion, model or own)


def compared(version: Version, champion: Version | None, rival: str) -> str:
    """The figures of both, side by side."""
    if champion is None:
        return f"Model `{rival}` has no champion yet."
    if champion == version:
        return ""
    head = f"| | this run | champion: {champion.name} version {champion.number} | difference |"
    lines = [head, "|---|---:|---:|---:|"]
    lines += [row(name, version.facts[name], champion.facts[name]) for name in FIGURES if name in champion.facts]
    if version.facts["test_digest"] != champion.facts["test_digest"]:
        lines += ["", "The two were judged on different test images, so accuracy and F1 do not compare."]
    return "\n".join(lines)


def row(name: str, mine: float, theirs: float) -> str:
    """One figure: shares differ in percentage points, everything else in percent."""
    if name in SHARES:
        return f"| {FIGURES[name]} | {mine:.2%} | {theirs:.2%} | {100 * (mine - theirs):+.2f} points |"
    change = f"{mine / theirs - 1:+.1%}" if theirs else ""
    return f"| {FIGURES[name]} | {mine:,.4g} | {theirs:,.4g} | {change} |"


def known(report: Mapping[str, Any]) -> bool:
    """Whether the outcome is known."""
    return bool(report["state"] != "SUCCEEDED" or report["release"] or report["steps"]["export"]["state"] == "SKIPPED")


def main(path: Path, parameters: str, model: str) -> int:
    """Prints the summary."""
    text = path.read_text()
    if not text:
        print("## No run was started\n\nSee what `retrain submit` said in the log.")
        return 0
    report = json.loads(text)
    print(summarize(report, parameters, model))
    return 0 if known(report) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
