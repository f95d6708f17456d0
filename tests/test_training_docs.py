"""docs/training.md tells of the training as it is."""

import os
import re
from pathlib import Path

from click.testing import CliRunner

from components.step import Field, fields
from components.train.checkpoint import KEPT, NAME
from components.train.hardware import (
    BATCH_SIZES,
    CPU_BATCH_SIZE,
    LEAST_BATCHES,
    LENET5_RATE,
    RATE_IMAGES,
    RATES,
    SHARDED_BATCH_SIZE,
)
from components.train.interface import Train
from components.train.range_test.range_test import BATCHES
from components.train.recipe import Recipe, read_recipe
from pipelines.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
TEXT = PAGE.read_text()
HEAD = "| part | values | default | what it is |\n|---|---|---|---|\n"


def test_its_table_of_recipes_is_made_from_the_interface() -> None:
    before, _, after = TEXT.partition(HEAD)
    table = HEAD + "".join(map(row, fields(Recipe)))
    page = before + table + re.sub(r"\A(\|.*\n)*", "", after)
    if "RETRAIN_UPDATE_DOCS" in os.environ:  # make docs
        PAGE.write_text(page)
    else:
        assert page == TEXT, "call `make docs`"


def row(field: Field) -> str:
    kinds = {int: "a whole number", float: "a number", str: "a name"}
    values = ", ".join(f"`{choice}`" for choice in field.choices) or kinds[field.type]
    return f"| `{field.name}` | {values} | `{field.default}` | {field.help} |\n"


def test_every_recipe_that_it_shows_is_one() -> None:
    shown = re.findall(r"--recipe '([^']+)'", TEXT)
    assert len(shown) == 2
    assert all(read_recipe(text) != Recipe() for text in shown)
    for pair in re.findall(r"`(\w+=\w+)`", TEXT):
        read_recipe(pair)


def test_every_command_and_flag_that_it_shows_is_one() -> None:
    commands = set(re.findall(r"^    retrain ([\w-]+)", TEXT, re.M))
    assert commands == {"run", "lr-find"}
    help = " ".join(CliRunner().invoke(main, [command, "--help"]).output for command in commands)
    step = {field.flag for field in fields(Train)}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT)) - {"--start-method", "--nproc-per-node"}  # torchrun's
    assert {"--recipe", "--start", "--gpus", "--nodes"} <= shown
    assert {flag for flag in shown - step if not re.search(rf"{flag}\b", help)} == set()


def test_what_is_chosen_is_what_it_says() -> None:
    assert f"{BATCH_SIZES['lenet5']} for LeNet-5; for others {CPU_BATCH_SIZE} a process" in TEXT
    assert f"{LEAST_BATCHES} batches an epoch at least; {SHARDED_BATCH_SIZE} a GPU with `parallel=fsdp`" in TEXT
    assert f"{LENET5_RATE} for LeNet-5; for others {RATES['adamw']}, or {RATES['sgd']} with `optimizer=sgd`" in TEXT
    assert f"at {RATE_IMAGES} images" in TEXT
    assert f"trains for {BATCHES} batches" in TEXT


def test_checkpoints_are_called_and_kept_as_it_says() -> None:
    (name,) = re.findall(r"training/IDENTITY/checkpoints/(\S+)", TEXT)
    assert NAME.fullmatch(name)
    assert f"The newest {KEPT} checkpoints are kept" in TEXT


def test_every_page_that_it_links_exists() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert {"watching.md", "models.md", "training-on-many-nodes.md"} <= set(linked)
    assert [page for page in linked if not (PAGE.parent / page).exists()] == []
