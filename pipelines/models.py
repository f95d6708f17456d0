"""What `retrain models` shows of the networks: text for people, JSON for programs, and the table in docs/models.md."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from components.models import ARCHITECTURES, check_architecture
from components.models.catalogue import Architecture
from components.step import StepError, UserError
from pipelines.pages import table

HEAD = ("name", "parameters", "GFLOPs", "input", "smallest", "licence", "from", "paper")


def list_page() -> str:
    """The named networks for people."""
    rows = [row(name, known.parameters, known.multiply_adds) for name, known in ARCHITECTURES.items()]
    head, *lines = table(tuple(map(str.upper, HEAD)), rows)
    notes = [
        "",
        "GFLOPs count a multiplication and its addition as one, for one image of the input size.",
        "Any other network of timm and torchvision: timm/NAME, torchvision/NAME.",
        "`retrain models NAME` explains one.",
    ]
    return "\n".join([head, *lines, *notes])


def row(name: str, parameters: int, multiply_adds: int) -> tuple[str, ...]:
    """A network as cells under HEAD, with figures that were measured."""
    known = ARCHITECTURES[name]
    return (
        name,
        f"{parameters / 1e6:.3g} M",
        f"{multiply_adds / 1e9:.3g}",
        f"{known.side}x{known.side}",
        " or ".join(map(str, sorted(known.sides))) or str(known.smallest),
        known.licence,
        origin(known.source),
        str(known.paper.year),
    )


def origin(source: str) -> str:
    """Where a network comes from, for people: "timm resnet18"."""
    library, _, name = source.partition("/")
    return f"{library} {name.partition('.')[0]}" if name else "Retrain"


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """The table of docs/models.md."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *rows))


def list_facts() -> list[dict[str, Any]]:
    """The named networks for programs."""
    return [facts(name) for name in ARCHITECTURES]


def facts(name: str) -> dict[str, Any]:
    """All about one network, for programs. Raises UserError where there is none of this name."""
    check_architecture(name)
    known = ARCHITECTURES.get(name)
    return {"name": name, **(asdict(known) | {"licence": known.licence} if known else look_up(name))}


def page(name: str) -> str:
    """All about one network, for people. Raises UserError where there is none of this name.

    What is not in the catalogue is looked up in its library, in a process of its own, where torch is installed.
    """
    check_architecture(name)
    known = ARCHITECTURES.get(name)
    told = _explain_known(name, known) if known else _explain_foreign(name)
    width = max(map(len, told))
    return "\n".join([name, *(f"  {title:<{width}}  {text}" for title, text in told.items())])


def _explain_known(name: str, known: Architecture) -> dict[str, str]:
    told = {
        "paper": str(known.paper),
        "from": f"{origin(known.source)} ({known.licence})",
        "size": f"{known.parameters:,} parameters with {known.classes:,} classes",
        "work": f"{known.multiply_adds / 1e9:.3g} GFLOPs for an image of {known.side}x{known.side}",
        "images": _sizes(known),
        "grey images": _channels(known),
        "pretrained": _weights(known.repository, name),
    }
    if known.options:
        told["options"] = ", ".join(f"--{option}" for option in known.options)
    return told | {"try": f"retrain run --architecture {name}"}


def _sizes(known: Architecture) -> str:
    if known.sides:
        return f"{' or '.join(f'{side}x{side}' for side in known.sides)}; others are resized inside the network"
    made = f"made for {known.side}x{known.side}"
    if known.smallest == 1:
        return f"{made}, takes any size"
    return f"{made}, takes any from {known.smallest} pixels a side on; smaller ones are enlarged inside the network"


def _channels(known: Architecture) -> str:
    if known.library == "torchvision":
        return "their channel is repeated three times"
    return "the first layer is made for the channels of the images"


def _weights(repository: str | None, name: str) -> str:
    if repository is None:
        return f"--start pretrained takes pretrained/{name}.safetensors in the store"
    return f"`hf download {repository} model.safetensors`, then --start pretrained"


def _explain_foreign(name: str) -> dict[str, str]:
    found = look_up(name)
    weights, size = found["weights"], f"{found['height']}x{found['width']}"
    return {
        "from": origin(name) + (f" ({found['licence']})" if found["licence"] else ""),
        "size": f"{found['parameters']:,} parameters with 1,000 classes",
        "work": f"{found['multiply_adds'] / 1e9:.3g} GFLOPs for an image of {size}",
        "images": f"made for {size}; others are resized to that inside the network where it does not take them",
        "pretrained": "; ".join([_weights(weights and weights["repository"], name), *_of_weights(weights or {})]),
        "try": f"retrain run --architecture {name}",
    }


def _of_weights(weights: dict[str, Any]) -> Iterator[str]:
    """What the library says of published weights, as far as it says it."""
    if weights.get("licence"):
        yield f"licence: {weights['licence']}"
    for paper in weights.get("papers", ()):
        yield f"paper: {paper.replace('arXiv:', 'https://arxiv.org/abs/')}"


def look_up(name: str) -> dict[str, Any]:
    """What a library says of one of its networks: the fields of `components.models.measure.Figures`, and of others.

    `licence` is that of its code; `weights` has `repository`, `licence` and `papers` of those that are published.

    Raises UserError where it has none of this name, or where neither torch nor the library is installed.
    """
    library = name.partition("/")[0]
    if not (find_spec("torch") and find_spec(library)):
        raise UserError(f"{name} cannot be looked up here: {library} is not installed; pip install 'retrain[local]'")
    asked = subprocess.run([sys.executable, "-m", "components.models", name], capture_output=True, text=True)
    if asked.returncode == UserError.code:
        raise UserError(asked.stderr.strip())
    if asked.returncode:
        raise StepError(f"{name} cannot be looked up: {asked.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(asked.stdout)
    return found
