"""What runs have published, without running them."""

from datetime import UTC, datetime
from pathlib import Path

from components import registry
from components.registry import Version
from components.storage import DirectoryStore
from components.verdict import Verdict, write_verdict
from tests.servers.kfp import Story

STEPS = ("plan", "shard", "ingest", "train", "evaluate", "export")

STORY: Story = [
    {"plan": "SUCCEEDED", "shard": ["SUCCEEDED", "RUNNING"]},
    {**dict.fromkeys(STEPS[:3], "SUCCEEDED"), "train": "RUNNING"},
    dict.fromkeys(STEPS, "SUCCEEDED"),
    "SUCCEEDED",
]
"""A run that goes well."""


def publish(store: DirectoryStore, run_id: str, accuracy: float = 0.99, *, accepted: bool = True) -> Version:
    """A version as export publishes it; the champion if it was accepted."""
    folder = store.root.parent / f"published-{run_id}"
    folder.mkdir()
    reason = "0.99 is at least 0.9" if accepted else "0.42 is below min_accuracy 0.9"
    write_verdict(folder / "verdict.json", verdict(accuracy, accepted, reason))
    facts = {
        "accuracy": accuracy,
        "accepted": accepted,
        "test_digest": "t",
        "dataset": "d",
        "run": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    model = folder / "model.onnx"
    model.write_text(run_id)
    version = registry.publish(store, "mnist", {"verdict.json": folder / "verdict.json", "model.onnx": model}, facts)
    best = registry.champion(store, "mnist")
    if accepted:
        registry.promote(store, version, best.number if best else None)
    return version


def verdict(accuracy: float, accepted: bool, reason: str) -> Verdict:
    return Verdict(
        accepted=accepted,
        reasons=(reason,),
        accuracy=accuracy,
        macro_precision=accuracy,
        macro_recall=accuracy,
        macro_f1=accuracy,
        per_class=(),
        confusion=(),
        test_images=200,
        dataset="d",
        test_digest="t",
        champion=None,
        seconds=1.0,
    )


def write(folder: Path, name: str, text: str) -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path
