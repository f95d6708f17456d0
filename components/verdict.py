"""What evaluate decided of a model: accepted or rejected, the reasons, and every figure behind them.

Evaluate writes it, export obeys it and publishes it beside the model. Standard library alone.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from components.step import UserError
from components.storage import aside

SCHEMA = 1
"""Version of the JSON; a file of a newer one is refused."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement of one model on one test split. Shares and averages lie between 0 and 1."""

    accepted: bool
    reasons: tuple[str, ...]  # sentences, for an accepted model too
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: tuple[dict[str, Any], ...]  # class, precision, recall, f1, images
    confusion: tuple[tuple[int, ...], ...]  # images by [true class][predicted class], in the order of per_class
    test_images: int
    dataset: str  # digest of the dataset
    test_digest: str  # digest of its test split
    champion: dict[str, Any] | None  # when it was judged: version, and accuracy on this split (None: not comparable)
    seconds: float


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Writes the verdict as JSON."""
    with aside(path) as copy:
        copy.write_text(json.dumps({"schema": SCHEMA, **asdict(verdict)}, indent=2) + "\n", encoding="utf-8")


def read_verdict(path: Path) -> Verdict:
    """Reads what write_verdict wrote. Raises UserError on a file that is no verdict or of a newer schema."""
    try:
        found = json.loads(path.read_bytes())
        schema = found["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a verdict; give the file that evaluate wrote") from None
    if schema != SCHEMA:
        raise UserError(f"{path} is a verdict of schema {schema}, this version reads schema {SCHEMA}; update Retrain")
    missing = [field.name for field in fields(Verdict) if field.name not in found]
    if missing:
        raise UserError(f"{path} is a damaged verdict: it lacks {', '.join(missing)}; run evaluate again")
    values = {field.name: found[field.name] for field in fields(Verdict)}
    for name in ("reasons", "per_class"):
        values[name] = tuple(values[name])
    values["confusion"] = tuple(tuple(row) for row in values["confusion"])
    return Verdict(**values)
