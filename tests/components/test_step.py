"""A step's interface, its command line and its process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from components import step
from components.step import In, Metadata, Out, StepError, UserError


@dataclass(frozen=True, kw_only=True)
class Paint:
    """Paints a wall."""

    wall: Annotated[Path, In("Dataset"), "The wall."]
    colour: Annotated[Literal["red", "green"], "The colour; 100 % opaque."] = "red"
    coats: Annotated[int, "How many coats."] = 2
    dry: Annotated[bool, "Whether to wait."] = True
    painted: Annotated[Path, Out("Model"), "The result."]

    def __post_init__(self) -> None:
        step.check_choices(self)
        step.require(self.coats >= 1, "coats", self.coats, "be at least 1")


ARGUMENTS = ["--wall", "w", "--painted", "p"]


def work(paint: Paint) -> Metadata:
    return {"painted": {"coats": paint.coats}}


def leave(code: int, *arguments: str, work=work) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as left:
        step.main(Paint, work, [*ARGUMENTS, *arguments])
    assert left.value.code == code


def test_fields_come_in_order_with_type_default_choices_and_help() -> None:
    wall, colour, coats, dry, painted = step.fields(Paint)
    assert (wall.artifact, painted.artifact) == (In("Dataset"), Out("Model"))
    assert wall.required
    assert (colour.type, colour.choices, colour.default) == (str, ("red", "green"), "red")
    assert (coats.type, coats.default, coats.help) == (int, 2, "How many coats.")
    assert dry.flag == "--dry"


def test_a_field_without_a_description_is_refused() -> None:
    @dataclass(frozen=True)
    class Bare:
        size: int = 1

    with pytest.raises(TypeError, match="'size' needs Annotated"):
        step.fields(Bare)


def test_help_shows_every_description_choice_and_default() -> None:
    text = " ".join(step.parser(Paint).format_help().split())
    for piece in ("Paints a wall.", "100 % opaque", "One of red, green. (default: red)", "(default: 2)", "(required)"):
        assert piece in text


def test_the_command_line_gives_the_interface_typed_values() -> None:
    seen: list[Paint] = []

    def look(paint: Paint) -> Metadata:
        seen.append(paint)
        return {}

    leave(0, "--coats", "3", "--dry", "False", work=look)
    assert seen == [Paint(wall=Path("w"), painted=Path("p"), coats=3, dry=False)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--coats", "0"], "error: coats must be at least 1, not 0"),
        (["--colour", "gren"], "error: unknown colour 'gren'; did you mean 'green'? (choices: red, green)"),
        (["--coats", "many"], "error: argument --coats: invalid int value: 'many'"),
        (["--dry", "perhaps"], "error: argument --dry: must be true or false, not 'perhaps'"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(2, *arguments)
    assert capsys.readouterr().err.splitlines()[-1].endswith(sentence)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("no such wall"), 2, "error: no such wall\n"),
        (StepError("the paint ran out"), 1, "error: the paint ran out\n"),
        (OSError(28, "No space left on device", "/wall"), 1, "error: No space left on device: /wall\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing half-written was left behind\n"),
    ],
)
def test_what_work_raises_becomes_a_sentence_and_an_exit_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(paint: Paint) -> Metadata:
        raise error

    leave(code, work=fail)
    assert capsys.readouterr().err == sentence


def test_metadata_is_written_where_kfp_looks_for_it(tmp_path: Path) -> None:
    said = tmp_path / "task" / "executor_output.json"
    artifact = {"name": "painted", "uri": "p", "type": {"schemaTitle": "system.Model"}}
    executor_input = {"outputs": {"outputFile": str(said), "artifacts": {"painted": {"artifacts": [artifact]}}}}
    leave(0, "--executor-input", json.dumps(executor_input))
    written = json.loads(said.read_text())
    assert written == {"artifacts": {"painted": {"artifacts": [{**artifact, "metadata": {"coats": 2}}]}}}


@pytest.mark.parametrize("name", ["plan", "shard", "ingest", "train", "evaluate", "export"])
def test_every_steps_help_needs_no_torch(name: str) -> None:
    script = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_module('components.{name}.interface')"
    subprocess.run([sys.executable, "-c", script], check=True)
