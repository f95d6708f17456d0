"""The proof that an ONNX model answers like the PyTorch model it was made from."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from components.models.artifact import Classifier
from components.progress import Progress
from components.step import StepError

MAX_DIFFERENCE = 1e-4
"""The most that a probability may differ: far above the rounding of single precision, far below what people notice."""

MIN_AGREEMENT = 0.999
"""The least share of images with the same label; not 1, because rounding may decide between two equal classes."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How much two runtimes differ on the same images."""

    images: int
    max_difference: float  # of any probability, absolute
    agreement: float  # share of the images with the same label, from 0 to 1


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the processor, with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    # Without a number ONNX Runtime takes every core of the node, whatever the pod was given.
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would spin while PyTorch's turn comes, and take the cores from them: half of the comparison's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compare(
    session: onnxruntime.InferenceSession,
    classifier: Classifier,
    classes: tuple[str, ...],
    batches: Iterable[NDArray[np.uint8]],
    total: int,
) -> Parity:
    """Asks both about all images, uint8 [N, height, width, channels] a batch, `total` in all."""
    names = np.array(classes, dtype=object)
    progress = Progress("compare ONNX Runtime with PyTorch", total, "images")
    differences, agreeing = [], 0
    for batch in batches:
        probabilities, labels = session.run(["probabilities", "labels"], {"images": batch})
        with torch.inference_mode():
            expected = classifier(torch.from_numpy(batch)).softmax(dim=1).numpy()
        differences.append(np.abs(probabilities - expected).max())
        agreeing += int((labels == names[expected.argmax(axis=1)]).sum())
        progress.advance(len(batch))
    # NumPy's max, unlike Python's, does not lose a NaN.
    return Parity(images=total, max_difference=float(np.max(differences)), agreement=agreeing / total)


def require_parity(parity: Parity) -> None:
    """Raises StepError where the two differ more than rounding explains."""
    if parity.max_difference <= MAX_DIFFERENCE and parity.agreement >= MIN_AGREEMENT:
        return
    raise StepError(
        f"the ONNX model does not answer like PyTorch: on {parity.images:,} test images probabilities differ by up to "
        f"{parity.max_difference:.2g} (limit {MAX_DIFFERENCE:g}) and {parity.agreement:.2%} of the labels agree "
        f"(limit {MIN_AGREEMENT:.1%}); nothing was published"
    )


def milliseconds_per_image(session: onnxruntime.InferenceSession, image: NDArray[np.uint8], runs: int = 100) -> float:
    """The median time to classify one image, uint8 [height, width, channels], alone."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, {"images": image[None]})
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
