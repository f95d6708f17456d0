"""From a step's interface to its KFP component: the only bridge between the two."""

import inspect
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components import step

IMAGE = "placed-by-placement"
"""A container component must name an image; pipelines/placement.py sets the real one."""

OUTPUTS = {"String": str, "List": list[int]}
"""The types of output parameters. Of a plain list KFP would take the items for strings, and hand on `"0"` for 0."""


def component(interface: type) -> Any:
    """The container component that runs a step as `python3 -m components.<step>` with all its fields as flags."""
    fields = step.fields(interface)

    def container(**given: Any) -> dsl.ContainerSpec:
        arguments = ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        for field in fields:
            arguments += [field.flag, _argument(field, given[field.name])]
        package = interface.__module__.rpartition(".")[0]
        return dsl.ContainerSpec(image=IMAGE, command=["python3", "-m", package], args=arguments)

    container.__name__ = interface.__name__.lower()
    container.__doc__ = interface.__doc__
    return dsl.container_component(declared(container, fields))


def _argument(field: step.Field, value: Any) -> Any:
    return value.path if field.is_file else value


def declared(function: Callable[..., Any], fields: list[step.Field]) -> Callable[..., Any]:
    """A function of `**given` as KFP wants it: called by position, its signature and docstring those of `fields`."""

    def called(*values: Any) -> Any:
        return function(**{field.name: value for field, value in zip(fields, values, strict=True)})

    parameters = [_parameter(field) for field in fields]
    called.__name__ = function.__name__
    called.__doc__ = documented(function.__doc__ or "", fields)
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _parameter(field: step.Field) -> inspect.Parameter:
    # By keyword only, so that fields without a default may follow those with one.
    default = inspect.Parameter.empty if field.required else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=_annotation(field), default=default)


def _annotation(field: step.Field) -> Any:
    if field.artifact is None:
        return field.type
    if not field.is_file:
        return dsl.OutputPath(OUTPUTS[field.artifact.type])
    marker = dsl.Input if isinstance(field.artifact, step.In) else dsl.Output
    return marker[getattr(dsl, field.artifact.type)]


def documented(summary: str, fields: list[step.Field]) -> str:
    """A docstring in Google's style, from which KFP takes the descriptions that its UI shows."""
    return "\n".join([summary, "", "Args:", *(f"    {field.name}: {description(field)}" for field in fields)])


def description(field: step.Field) -> str:
    """A field's help, with its choices."""
    return field.help + (f" One of {', '.join(field.choices)}." if field.choices else "")
