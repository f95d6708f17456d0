"""Asks the champion what is on an image, through ONNX Runtime alone: no torch, no dataset, no training code."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from components.registry import champion, read_file
from components.step import UserError
from components.storage import Store

BATCH = 256
"""Images at once: few enough for little memory with any model."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of an image with so many channels."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the champion takes an image for."""

    file: str
    label: str
    probability: float


def predict(store: Store, model_name: str, files: Sequence[Path]) -> list[Prediction]:
    """Classifies PNG and JPEG files with the champion, in the order given.

    Each image is turned upright, converted to the model's channels and resized to its shape. It should look like the
    images the model was trained on: MNIST's digits are white on black.

    Raises UserError where there is no champion, or a file is missing, no image, damaged or too large.
    """
    session = _open_champion(store, model_name)
    height, width, channels = session.get_inputs()[0].shape[1:]
    predictions = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        images = np.stack([read_image(file, (height, width, channels)) for file in batch])
        probabilities, labels = session.run(["probabilities", "labels"], {"images": images})
        for file, label, probability in zip(batch, labels, probabilities.max(axis=1), strict=True):
            predictions.append(Prediction(file=str(file), label=str(label), probability=float(probability)))
    return predictions


def _open_champion(store: Store, model_name: str) -> onnxruntime.InferenceSession:
    version = champion(store, model_name)
    if version is None:
        raise UserError(f"store {store.uri} has no champion of model {model_name!r} yet; `retrain run` makes one")
    return onnxruntime.InferenceSession(read_file(store, version, "model.onnx"), providers=["CPUExecutionProvider"])


def read_image(file: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Reads a PNG or JPEG file as uint8 of this shape: height, width, channels (1 or 3). Raises UserError.

    Transparent pixels count as black. Pillow's own limit of 89 million pixels holds, so that a small file cannot fill
    the memory.
    """
    height, width, channels = shape
    mode = MODES[channels]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data, say, beside a whole image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                upright = _to_8_bits(ImageOps.exif_transpose(image)).convert(mode)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{file} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise UserError(f"{file} is neither a PNG nor a JPEG image") from None
    except Exception as error:  # what Pillow's decoders raise has no common base: OSError, SyntaxError, struct.error, …
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright).reshape(shape)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel and nothing transparent."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips all but the darkest 256 shades to white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image
