"""Asks the champion what is on an image, through ONNX Runtime alone: no torch, no dataset, no training code."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from components.dataset.images import BadImage, decode, fit, inspect
from components.plan.interface import Plan
from components.registry import champion, read_file
from components.step import UserError
from components.storage import Store

BATCH = 256
"""Images at once: few enough for little memory with any model."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the champion takes an image for."""

    file: str
    label: str
    probability: float


def predict(store: Store, model_name: str, files: Sequence[Path]) -> list[Prediction]:
    """Classifies image files with the champion, in the order given.

    Each is read as ingest reads it and resized to the model's shape; where the model learnt from images of many sizes
    it is cut to its middle as well, as those were that the model was judged on. It should look like the images the
    model was trained on: MNIST's digits are white on black.

    Raises UserError where there is no champion, or a file is missing, no image, damaged or too large.
    """
    session = _open_champion(store, model_name)
    cropped = session.get_modelmeta().custom_metadata_map.get("cropped") == "true"
    height, width, channels = session.get_inputs()[0].shape[1:]
    predictions = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        images = np.stack([read_image(file, (height, width, channels), cropped) for file in batch])
        probabilities, labels = session.run(["probabilities", "labels"], {"images": images})
        for file, label, probability in zip(batch, labels, probabilities.max(axis=1), strict=True):
            predictions.append(Prediction(file=str(file), label=str(label), probability=float(probability)))
    return predictions


def _open_champion(store: Store, model_name: str) -> onnxruntime.InferenceSession:
    version = champion(store, model_name)
    if version is None:
        raise UserError(f"store {store.uri} has no champion of model {model_name!r} yet; `retrain run` makes one")
    return onnxruntime.InferenceSession(read_file(store, version, "model.onnx"), providers=["CPUExecutionProvider"])


def read_image(file: Path, shape: tuple[int, int, int], cropped: bool) -> NDArray[np.uint8]:
    """Reads an image file as uint8 of this shape: height, width, channels (1 or 3). Raises UserError."""
    try:
        content = inspect(file.read_bytes(), Plan.max_pixels).content
        if cropped:
            return fit(content, shape)
        pixels = decode(content, shape[2])
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except BadImage as bad:
        raise UserError(f"{file} {bad}") from None
    image = Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels)
    height, width, _ = shape
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)
