"""docs/models.md tells of the networks as they are."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner

from components.models import ARCHITECTURES
from components.models.catalogue import Architecture
from components.models.measure import Figures, measure
from pipelines import models
from pipelines.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "models.md"


def test_its_table_is_that_of_the_networks() -> None:
    page = PAGE.read_text()
    (shown,) = re.findall(r"(?:^\|.*\n)+", page, re.M)
    if "RETRAIN_UPDATE_DOCS" in os.environ:  # make docs
        PAGE.write_text(page.replace(shown, table({name: measure(name) for name in ARCHITECTURES})))
    else:  # tests/components/models/test_measure.py runs each network to prove the catalogue right
        assert shown == table(ARCHITECTURES), "call `make docs`"


def table(figures: Mapping[str, Architecture | Figures]) -> str:
    rows = [models.row(name, of.parameters, of.multiply_adds) for name, of in figures.items()]
    return models.markdown(rows) + "\n"


def test_every_command_that_it_shows_is_one() -> None:
    commands = set(re.findall(r"^    retrain (\w+)", PAGE.read_text(), re.M))
    assert commands == {"models", "run"}
    help = CliRunner().invoke(main, ["run", "--help"]).output
    ours = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.S)  # in a fence other programs are called
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours))
    assert {"--architecture", "--start", "--image-size"} <= shown
    assert {flag for flag in shown if not re.search(rf"{flag}\b", help)} == set()
