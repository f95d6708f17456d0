"""Checks JSON against the models that OpenAPI's generator made, as kfp_server_api's and kubernetes' are."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from types import ModuleType
from typing import Any

from pydantic import ValidationError


class WrongField(Exception):
    """A field that the model does not have, or a value of another type."""


def check(models: ModuleType, kind: str, value: Any, where: str = "") -> None:
    """Raises WrongField unless a JSON value is one of a model's, down to the last field."""
    container = re.fullmatch(r"(?:list\[|dict\(str, )(.*)[\])]", kind)
    if container and kind.startswith("list"):
        require(isinstance(value, list), f"{where} must be a list")
        for item in value:
            check(models, container.group(1), item, where)
    elif container:
        require(isinstance(value, dict), f"{where} must be an object")
        for key, item in value.items():
            check(models, container.group(1), item, f"{where}.{key}")
    elif kind in PRIMITIVES:
        require(PRIMITIVES[kind](value), f"invalid value for {kind} field {where}: {value!r}")
    elif kind != "object":
        check_model(models, kind, value, where)


def check_model(models: ModuleType, kind: str, value: Any, where: str) -> None:
    model = getattr(models, kind)
    if not model.openapi_types:  # an enumeration
        names = getattr(model, "allowable_values", None) or [v for k, v in vars(model).items() if k.isupper()]
        require(value in names, f"invalid value for enum field {where}: {value!r}")
        return
    require(isinstance(value, dict), f"{where} must be an object")
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, item in value.items():
        require(key in attributes, f'unknown field "{key}"')
        if item is not None:
            check(models, model.openapi_types[attributes[key]], item, f"{where}.{key}".strip("."))


def check_pydantic(model: Any, value: Any) -> None:
    """The same with a model of kubeflow_trainer_api, of the generator's later kind, which ignores what is unknown."""
    try:
        kept = json.loads(json.dumps(model.from_dict(value).to_dict(), default=str))
    except ValidationError as error:
        raise WrongField(str(error.errors()[0])) from None
    lost = list(_lost(value, kept, ""))
    require(not lost, f'unknown field "{lost[0]}"' if lost else "")


def _lost(given: Any, kept: Any, where: str) -> Iterator[str]:
    """The fields of a value that are not in another."""
    if isinstance(given, dict):
        for key, value in given.items():
            path = f"{where}.{key}".strip(".")
            yield from _lost(value, kept[key], path) if key in kept else [path]
    elif isinstance(given, list):
        for value, other in zip(given, kept, strict=True):
            yield from _lost(value, other, where)


def require(holds: bool, message: str) -> None:
    if not holds:
        raise WrongField(message)


def is_time(value: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(value).tzinfo)
    except (TypeError, ValueError):
        return False


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


PRIMITIVES = {
    "str": lambda value: isinstance(value, str) or is_number(value),  # int64 is text in JSON, and numbers are taken
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": is_number,
    "bool": lambda value: isinstance(value, bool),
    "datetime": is_time,
}
