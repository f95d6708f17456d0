"""docs/ui.md tells of the pipeline as it is."""

import re
from pathlib import Path

from components.step import Out, fields
from pipelines.parameters import STEPS, parameters

UI = Path(__file__).parent.parent / "docs" / "ui.md"

PLAIN = {("Plan", "plan"), ("Plan", "workers"), ("Ingest", "decision"), ("Train", "model"), ("Evaluate", "verdict")}
"""Artifacts of which the UI shows no more than that they are there."""


def section(title: str) -> str:
    return UI.read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_file_that_it_links_exists() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", UI.read_text())
    assert linked
    assert [path for path in linked if not (UI.parent / path).exists()] == []


def test_every_parameter_that_it_names_is_one_of_the_pipeline() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", section("Start a run"), re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named
    assert named <= {field.name for field in parameters()}


def test_it_tells_of_every_artifact_that_is_seen() -> None:
    told = set(re.findall(r"^\| (\w+) \| `(\w+)` \|", section("What a run shows"), re.M))
    outputs = {
        (step.__name__, field.name) for step in STEPS for field in fields(step) if isinstance(field.artifact, Out)
    }
    assert told == outputs - PLAIN
