"""Prints what extras of pyproject.toml need, a requirement a line: `python3 docker/requirements.py train evaluate`.

$TORCH, such as `torch==2.13.0+cpu`, takes the place of the torch that is pinned there. Uses the standard library alone.
"""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> set[str]:
    """What the project needs with these extras; an extra may name others, as `retrain[train]`."""
    found = set(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            others = re.fullmatch(r"retrain\[(.*)\]", requirement)
            found |= requirements(project, others[1].split(",")) if others else {requirement}
    return found


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    for requirement in sorted(requirements(project, sys.argv[1:])):
        print(os.environ.get("TORCH") or requirement if requirement.startswith("torch==") else requirement)
