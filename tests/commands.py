"""The installed `retrain` command, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RETRAIN = str(Path(sys.executable).with_name("retrain"))


def retrain(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `retrain` in a folder to its end."""
    command = [RETRAIN, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


def release(store: Path) -> dict[str, Any]:
    """What the newest run in a store published."""
    run = max((store / "runs").glob("retrain-*"))
    found: dict[str, Any] = json.loads((run / "export" / "release").read_text())
    return found


def published(store: Path) -> list[str]:
    """Every file below a store that a person could take for a dataset, a model or a pointer."""
    files = [path for path in store.rglob("*") if path.is_file() and "runs" not in path.parts]
    return sorted(str(path.relative_to(store)) for path in files if path.name != ".lock")
