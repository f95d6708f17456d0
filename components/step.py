"""A step of the pipeline: a frozen dataclass says what goes in and out, a function does the work.

The dataclass is the only declaration. From it come the command line (`python -m components.train --help`), the KFP
component (pipelines/kfp_component.py) and the flags of `retrain run`:

    @dataclass(frozen=True, kw_only=True)
    class Train:
        dataset: Annotated[Path, In("Dataset"), "The manifest that ingest wrote."]
        epochs: Annotated[int, "Passes over the training split."] = 12
        model: Annotated[Path, Out("Model"), "Weights and config."]

This module uses the standard library alone, so that `--help` and `compile` answer at once.
"""

import argparse
import dataclasses
import difflib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

Metadata = Mapping[str, Mapping[str, Any]]
"""What a step says of its output artifacts for the UI: {output name: {key: JSON value}}."""


class UserError(Exception):
    """The user's mistake, in one sentence that names the field, the value and the way out."""

    code = 2  # which the process exits with


class StepError(Exception):
    """What was asked for failed, for a reason that one sentence tells."""

    code = 1


@dataclasses.dataclass(frozen=True)
class In:
    """Marks a path that holds another step's artifact; `type` is its KFP type, such as `Dataset`."""

    type: str


@dataclasses.dataclass(frozen=True)
class Out:
    """Marks a path that the step writes an artifact to; `type` is its KFP type, such as `Model`.

    `String` and `List` are no artifacts but output parameters, on which the pipeline can depend: the file's text, and a
    JSON list of whole numbers.
    """

    type: str


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of an interface: an artifact where `artifact` is set, a parameter otherwise."""

    name: str
    help: str
    type: type
    default: Any
    choices: tuple[str, ...]
    artifact: In | Out | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def is_file(self) -> bool:
        """Whether KFP knows it as an artifact, and not by its value."""
        return self.artifact is not None and self.artifact.type not in ("String", "List")


def fields(interface: type) -> list[Field]:
    """The fields of an interface in the order of their declaration."""
    hints = get_type_hints(interface, include_extras=True)
    return [_field(field, hints[field.name]) for field in dataclasses.fields(interface)]


def _field(field: "dataclasses.Field[Any]", hint: Any) -> Field:
    if get_origin(hint) is not Annotated or not isinstance(hint.__metadata__[-1], str):
        raise TypeError(f"field {field.name!r} needs Annotated[type, 'what it is']")
    kind, *markers, help = get_args(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return Field(
        name=field.name,
        help=help,
        type=str if choices else kind,
        default=field.default,
        choices=choices,
        artifact=markers[0] if markers else None,
    )


def require(holds: bool, name: str, value: object, must: str) -> None:
    """Raises UserError, with the field's name and value and what it must be, unless `holds`."""
    if not holds:
        raise UserError(f"{name} must {must}, not {value!r}")


def choose(kind: str, name: str, choices: Sequence[str]) -> str:
    """Returns `name` if it is one of `choices`; raises UserError with the nearest of them otherwise."""
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, n=1)
    listed = f"choices: {', '.join(choices)}"
    raise UserError(f"unknown {kind} {name!r}; " + (f"did you mean {near[0]!r}? ({listed})" if near else listed))


def read_pairs(parameter: str, kind: str, text: str, names: Sequence[str], example: str) -> dict[str, str]:
    """The value by name of a parameter such as 'damaged=0.05 leaks=0', which `example` shows; `kind` is what each is.

    Raises UserError, with the nearest name, where one is unknown, and where a pair is none or given twice.
    """
    given: dict[str, str] = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        choose(kind, name, names)
        if not equals or name in given:
            raise UserError(f"{parameter} must be pairs such as '{example}', each name once, not {text!r}")
        given[name] = value
    return given


def check_choices(step: object) -> None:
    """Checks every `Literal` field of an interface's instance against its choices."""
    for field in fields(type(step)):
        if field.choices:
            choose(field.name.replace("_", " "), getattr(step, field.name), field.choices)


def boolean(text: str) -> bool:
    """Reads a boolean as the KFP launcher ('true') and its local twin ('True') write it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def parser(interface: type) -> argparse.ArgumentParser:
    """The command line of a step. Required fields are required flags; defaults and help are the interface's."""
    package = interface.__module__.rpartition(".")[0]
    arguments = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=interface.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for field in fields(interface):
        shown = "required" if field.required else f"default: {field.default}"
        among = f" One of {', '.join(field.choices)}." if field.choices else ""
        arguments.add_argument(
            field.flag,
            required=field.required,
            default=None if field.required else field.default,
            type=boolean if field.type is bool else field.type,
            metavar=field.type.__name__.upper(),
            help=f"{field.help}{among} ({shown})".replace("%", "%%"),
        )
    arguments.add_argument("--executor-input", type=json.loads, metavar="JSON", help="What KFP says of this task.")
    return arguments


def main(interface: type[T], work: Callable[[T], Metadata | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a step as a process: exit code 0 when it is done, 1 when it failed, 2 for a user's mistake."""
    signal.signal(signal.SIGTERM, _terminate)
    arguments = vars(parser(interface).parse_args(argv))
    executor_input = arguments.pop("executor_input")
    try:
        metadata = work(interface(**arguments))
        if executor_input:
            write_executor_output(executor_input, metadata or {})
    except (UserError, StepError) as error:
        _fail(error, error.code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written was left behind", 130)
    sys.exit(0)


def die_with_parent() -> None:
    """Has the kernel kill this process when that which started it is no more: nobody would hear it (prctl(2))."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # an exception, so that files written aside are removed on the way out


def _fail(reason: object, code: int) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    sys.exit(code)


def write_executor_output(executor_input: Mapping[str, Any], metadata: Metadata) -> None:
    """Writes the file in which KFP's launcher, and kfp.local, look for the metadata of a task's output artifacts.

    Source: kubeflow/pipelines, backend/src/v2/component/launcher_v2.go and api/v2alpha1/pipeline_spec.proto.
    """
    outputs = executor_input["outputs"]
    artifacts = {
        name: {"artifacts": [artifact | {"metadata": dict(metadata.get(name, {}))} for artifact in listed["artifacts"]]}
        for name, listed in outputs.get("artifacts", {}).items()
    }
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": artifacts}))
