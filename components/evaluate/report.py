"""The report of a run: one HTML page that needs no network and no script, readable in a browser and in KFP's UI."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.chart import Chart, line_chart
from components.dataset.manifest import SPLITS, Manifest
from components.evaluate.fit import size
from components.evaluate.gate import percent
from components.evaluate.metrics import most_confused
from components.models.config import ModelConfig
from components.page import template
from components.verdict import Verdict

PAGE = Path(__file__).with_name("report.html")

MATRIX_CLASSES = 30
"""Classes that fit into a readable confusion matrix; of more, those with the most mistakes are shown."""

THUMBNAIL = 128
"""Longest side of a mistake's image in the page, in pixels."""


@dataclass(frozen=True)
class Mistake:
    """A test image that the model took for something else."""

    image: NDArray[np.uint8]  # [H, W, C]
    true: str
    predicted: str
    confidence: float  # the probability of the predicted class

    @property
    def data_uri(self) -> str:
        """The image as a PNG in a data URI (RFC 2397)."""
        picture = Image.fromarray(self.image.squeeze(2) if self.image.shape[2] == 1 else self.image)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Cell:
    """A number of the confusion matrix; `heat` from 0 to 1 says how it compares with the most frequent mistake."""

    count: int
    right: bool
    heat: float


def render(
    model_name: str,
    verdict: Verdict,
    manifest: Manifest,
    config: ModelConfig,
    curve: Sequence[Mapping[str, Any]],
    mistakes: Sequence[Mistake],
) -> str:
    """The page. Whatever comes from outside, such as a class's name, is escaped."""
    wrong = sum(map(sum, verdict.confusion)) - sum(row[i] for i, row in enumerate(verdict.confusion))
    return template(PAGE).render(
        model_name=model_name,
        verdict=verdict,
        config=config,
        wrong=wrong,
        percent=lambda share: percent(share, verdict.test_images),
        highlights=highlights(config),
        charts=charts(curve),
        matrix=matrix(verdict),
        classes=len(manifest.classes),
        mistakes=mistakes,
        facts=facts(verdict, manifest, config),
        now=datetime.now(UTC),
    )


def highlights(config: ModelConfig) -> dict[str, tuple[str, str]]:
    """The figures of the training that the head of the page shows: {name: (value, what it counts)}."""
    return {
        name: (said(config.training[key]), unit)
        for name, key, unit in (
            ("Size", "parameters", "parameters"),
            ("Training", "seconds", "seconds"),
            ("Speed", "images_per_second", "training images a second"),
        )
        if key in config.training
    }


def charts(curve: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """The learning curve by epoch: accuracy and loss, of both splits as far as the curve has them."""
    return {
        title: line_chart(title, series, logarithmic, say)
        for title, figure, logarithmic, say in (
            ("Accuracy", "accuracy", False, lambda share: f"{100 * share:.4g} %"),
            ("Loss (logarithmic)", "loss", True, lambda loss: f"{loss:.3g}"),
        )
        if (series := _series(curve, figure))
    }


def _series(curve: Sequence[Mapping[str, Any]], figure: str) -> dict[str, list[tuple[float, float]]]:
    found = {
        split: [(row["epoch"], row[f"{split}_{figure}"]) for row in curve if row.get(f"{split}_{figure}") is not None]
        for split in ("validation", "train")
    }
    return {split: points for split, points in found.items() if points}


def matrix(verdict: Verdict) -> dict[str, list[Cell]]:
    """The rows of the confusion matrix by true class: its cells by predicted class."""
    counts = np.array(verdict.confusion)
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    shown, most = most_confused(counts, MATRIX_CLASSES), max(int(wrong.max()), 1)
    return {
        verdict.per_class[true]["class"]: [
            Cell(int(counts[true, predicted]), true == predicted, round((wrong[true, predicted] / most) ** 0.5, 3))
            for predicted in shown
        ]
        for true in shown
    }


def facts(verdict: Verdict, manifest: Manifest, config: ModelConfig) -> dict[str, dict[str, str]]:
    """What is known of data, model, training and times: {heading: {name: value}}."""
    training = dict(config.training)
    training.pop("recipe_in_full", None)  # its text says what differs from the default
    seconds = {
        "ingest": manifest.provenance.get("seconds"),
        "train": training.pop("seconds", None),
        "evaluate": verdict.seconds,
    }
    data = {
        "source": manifest.provenance.get("source", "unknown"),
        **{f"{split} images": manifest.images(split) for split in SPLITS},
        "classes": len(manifest.classes),
        "image": size(manifest.shape),
        "mean": manifest.mean,
        "standard deviation": manifest.std,
        "digest": _short(manifest.digest),
    }
    if config.dataset != manifest.digest:
        data["model trained on"] = _short(config.dataset)
    model = {"architecture": config.architecture, **config.options, "parameters": training.pop("parameters", None)}
    times = {step: f"{duration:.1f} s" for step, duration in seconds.items() if duration is not None}
    sections = {"Data": data, "Model": model, "Training": training, "Times": times}
    return {
        heading: {name.replace("_", " "): said(value) for name, value in section.items() if value is not None}
        for heading, section in sections.items()
    }


def said(value: object) -> str:
    """A fact as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(said, value))
    return str(value)


def _short(digest: str) -> str:
    return digest[:12] + "…"
