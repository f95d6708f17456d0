"""Exports a model to ONNX, proves that it answers like PyTorch, and publishes it."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from components.code import code_digest
from components.dataset.manifest import Manifest, read_manifest
from components.export.interface import Export
from components.export.onnx_model import to_onnx
from components.export.parity import compare, milliseconds_per_image, open_session, require_parity
from components.export.summary import summarize
from components.loader.batches import batches
from components.memory import keep_freed_memory
from components.models.artifact import ModelConfig, load
from components.registry import Version, champion, promote, publish
from components.step import Metadata, UserError
from components.storage import Store, aside, open_store
from components.verdict import Verdict, read_verdict


def export(step: Export) -> Metadata:
    """Writes the ONNX file, compares it with PyTorch on every test image, publishes it and promotes it if accepted."""
    started = time.monotonic()
    keep_freed_memory()
    store = open_store(step.store)
    manifest = read_manifest(step.dataset)
    verdict = read_verdict(step.verdict)
    classifier, config = load(step.model)
    require_one_run(manifest, config, verdict)

    # ONNX
    cropped = config.shape != manifest.shape
    content = to_onnx(classifier, config, step.model_name, cropped=cropped).SerializeToString(deterministic=True)

    # Parity
    images = (images for images, _ in batches(store, manifest, "test", config.shape))
    session = open_session(content)
    parity = compare(session, classifier, config.classes, images, manifest.images("test"))
    require_parity(parity)
    metrics = {
        "max_difference": parity.max_difference,
        "agreement": parity.agreement,
        "onnx_bytes": len(content),
        "milliseconds_per_image": milliseconds_per_image(session, np.zeros(config.shape, np.uint8)),
    }

    # Registry
    with TemporaryDirectory(prefix="export-") as folder:
        onnx_file = Path(folder) / "model.onnx"
        onnx_file.write_bytes(content)
        files = {name: step.model / name for name in ("weights.safetensors", "config.json", "curve.json")}
        files |= {"model.onnx": onnx_file, "verdict.json": step.verdict, "report.html": step.report}
        version = publish(store, step.model_name, files, facts(step, config, verdict, metrics))
    promoted, reason = crown(store, version, verdict)

    # What people see
    release = {
        "version": asdict(version),
        "champion": promoted,
        "reason": reason,
        "onnx": f"{store.uri}/{version.files['model.onnx']}",
        "report": f"{store.uri}/{version.files['report.html']}",
        "parity": asdict(parity),
        "seconds": time.monotonic() - started,
    }
    write(step.release, json.dumps(release, indent=2) + "\n")
    write(step.metrics, json.dumps(metrics, indent=2) + "\n")
    write(step.summary, summarize(release, verdict))
    return {"metrics": metrics, "release": {"version": version.number, "champion": promoted}}


def require_one_run(manifest: Manifest, config: ModelConfig, verdict: Verdict) -> None:
    """Raises UserError unless the verdict is about the dataset and the model fits it."""
    if (verdict.dataset, config.dataset, config.classes) != (manifest.digest, manifest.digest, manifest.classes):
        raise UserError("dataset, model and verdict are not of one run; give what evaluate was given and what it wrote")


def facts(step: Export, config: ModelConfig, verdict: Verdict, metrics: dict[str, float]) -> dict[str, Any]:
    """What the registry says of a version, so that models are listed and compared without opening their files."""
    return {
        "accuracy": verdict.accuracy,
        "macro_f1": verdict.macro_f1,
        "accepted": verdict.accepted,
        "dataset": verdict.dataset,
        "test_digest": verdict.test_digest,
        "classes": config.classes,
        "shape": config.shape,
        "architecture": config.architecture,
        "code": code_digest(),
        "run": step.run_id,
        **metrics,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def crown(store: Store, version: Version, verdict: Verdict) -> tuple[bool, str]:
    """Makes an accepted version champion. Returns whether it is, and why, in a sentence.

    Evaluate judged it against the champion of that moment. Where another run was faster, the new champion stays if it
    is better, or if it was judged on another test split, which tells nothing of the two.
    """
    if not verdict.accepted:
        return False, "It was rejected and stays in the registry for inspection."
    over = verdict.champion["version"] if verdict.champion else None
    while not promote(store, version, over):
        rival = champion(store, version.name)
        if rival is not None:
            stays = f"It was accepted, but version {rival.number} became champion meanwhile"
            if rival.facts["test_digest"] != verdict.test_digest:
                return False, f"{stays} and was judged on another test split."
            if rival.facts["accuracy"] > verdict.accuracy:
                return False, f"{stays} and is better: {rival.facts['accuracy']:.4f} against {verdict.accuracy:.4f}."
        over = rival.number if rival else None
    return True, "It is the champion."


def write(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with aside(path) as copy:
        copy.write_text(text)
