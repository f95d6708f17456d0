"""Where this machine keeps what can be fetched again."""

import os
import tempfile
from pathlib import Path

from components.step import StepError


def cache_folder(name: str, needed: str) -> Path:
    """A folder that can be written and that lasts: in $XDG_CACHE_HOME or ~/.cache, or else in the temporary folder.

    Raises StepError, which begins with what is `needed`, where there is none.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/nonexistent"), ".cache"))
    temporary = Path(tempfile.gettempdir())
    for folder in (home / "retrain" / name, temporary / f"retrain-{os.getuid()}" / name):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise StepError(f"{needed} in {home} or {temporary}, and neither can be written to")
