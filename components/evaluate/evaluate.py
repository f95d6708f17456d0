"""Judges a model on the test split."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.dataset.manifest import Manifest, read_manifest
from components.evaluate.champion import find_rival
from components.evaluate.fit import misfit
from components.evaluate.gate import Rival, judge
from components.evaluate.interface import Evaluate
from components.evaluate.metrics import Scores, confusion_matrix, most_confused, score, worst_mistakes
from components.evaluate.prediction import predict
from components.evaluate.report import Mistake, render
from components.loader.batches import batches
from components.memory import keep_freed_memory
from components.models import artifact
from components.models.config import read_curve
from components.step import Metadata, UserError
from components.storage import aside, open_store
from components.verdict import Verdict, write_verdict

WORST_MISTAKES = 32
"""Mistakes that the report shows."""
UI_CLASSES = 100
"""Classes of the confusion matrix that the UI is given."""


def evaluate(step: Evaluate) -> Metadata:
    """Predicts every test image once, judges the model, and writes verdict, metrics and report."""
    start = time.monotonic()
    keep_freed_memory()
    manifest = read_manifest(step.dataset)
    classifier, config = artifact.load(step.model)
    if obstacle := misfit(config, manifest):
        raise UserError(f"the model cannot be judged on this dataset, because {obstacle}; train one on it first")

    # The test split
    store = open_store(step.store)
    images = batches(store, manifest, "test", config.shape)
    confusion, mistakes = tally(predict(classifier, images, manifest.images("test"), ""), manifest.classes)
    scores = score(confusion)

    # The gate
    rival = find_rival(store, step.model_name, manifest)
    verdict = conclude(step, manifest, scores, rival, start)

    # What people see
    report = render(step.model_name, verdict, manifest, config, read_curve(step.model), mistakes)
    metrics, matrix = ui_metrics(verdict), ui_confusion(verdict)

    # The files
    write_verdict(step.verdict, verdict)
    write(step.metrics, json.dumps(metrics, indent=2) + "\n")
    write(step.confusion, json.dumps(matrix, indent=2) + "\n")
    write(step.report, report)

    print(f"{'accepted' if verdict.accepted else 'rejected'}: {' '.join(verdict.reasons)}", flush=True)
    decision = {"accepted": verdict.accepted, "reasons": list(verdict.reasons)}
    return {"verdict": decision, "metrics": metrics, "confusion": matrix}


def tally(
    answers: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]], classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], list[Mistake]]:
    """The confusion matrix, int64 [K, K], and the worst mistakes of what `predict` gives; in constant memory."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    mistakes: list[Mistake] = []
    for images, labels, probabilities in answers:
        confusion += confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
        mistakes += find_mistakes(classes, images, labels, probabilities)
        mistakes = sorted(mistakes, key=lambda mistake: -mistake.confidence)[:WORST_MISTAKES]
    return confusion, mistakes


def conclude(step: Evaluate, manifest: Manifest, scores: Scores, rival: Rival | None, start: float) -> Verdict:
    """The verdict on a model with these scores, whose judgement began at `start` by the monotonic clock."""
    images = manifest.images("test")
    accepted, reasons = judge(scores.accuracy, images, rival, step.min_accuracy, step.max_drop)
    return Verdict(
        accepted=accepted,
        reasons=reasons,
        accuracy=scores.accuracy,
        macro_precision=scores.macro_precision,
        macro_recall=scores.macro_recall,
        macro_f1=scores.macro_f1,
        per_class=per_class(scores, manifest.classes),
        confusion=tuple(map(tuple, scores.confusion.tolist())),
        test_images=images,
        dataset=manifest.digest,
        test_digest=manifest.split_digests["test"],
        champion={"version": rival.version, "accuracy": rival.accuracy} if rival else None,
        seconds=time.monotonic() - start,
    )


def per_class(scores: Scores, classes: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """The scores as a table with one row a class, in the order of the classes."""
    columns = zip(classes, scores.precision, scores.recall, scores.f1, scores.confusion.sum(axis=1), strict=True)
    return tuple(
        {"class": name, "precision": float(precision), "recall": float(recall), "f1": float(f1), "images": int(images)}
        for name, precision, recall, f1, images in columns
    )


def find_mistakes(
    classes: tuple[str, ...], images: NDArray[np.uint8], labels: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> list[Mistake]:
    """The worst mistakes among images uint8 [N, H, W, C] with labels int64 [N] and probabilities float32 [N, K]."""
    return [
        Mistake(
            image=images[index].copy(),  # or the whole batch would stay in memory with it
            true=classes[labels[index]],
            predicted=classes[probabilities[index].argmax()],
            confidence=float(probabilities[index].max()),
        )
        for index in worst_mistakes(labels, probabilities, WORST_MISTAKES)
    ]


def ui_metrics(verdict: Verdict) -> dict[str, float]:
    """The figures that KFP's UI lists, rounded for people; the verdict has them in full."""
    figures = {name: getattr(verdict, name) for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")}
    if verdict.champion and verdict.champion["accuracy"] is not None:
        figures["champion_accuracy"] = verdict.champion["accuracy"]
    return {name: round(figure, 6) for name, figure in figures.items()} | {"test_images": verdict.test_images}


def ui_confusion(verdict: Verdict) -> dict[str, Any]:
    """The confusion matrix as KFP's UI draws it: what kfp.dsl.ClassificationMetrics.log_confusion_matrix records.

    Of very many classes only those with the most mistakes: KFP keeps it in its database, with the run.
    """
    shown = most_confused(np.array(verdict.confusion), UI_CLASSES)
    return {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": verdict.per_class[index]["class"]} for index in shown],
            "rows": [{"row": [verdict.confusion[index][column] for column in shown]} for index in shown],
        }
    }


def write(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with aside(path) as copy:
        copy.write_text(text, encoding="utf-8")
