"""What a classifier says of many images, batch by batch."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from components.models.artifact import Classifier
from components.progress import Progress
from components.step import StepError

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images [N, H, W, C] and their labels [N]."""


@torch.inference_mode()
def predict(
    classifier: Classifier, batches: Iterable[Batch], total: int, what: str
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]]:
    """Adds to each batch the probability of every class for every image, float32 [N, K].

    `total` is how many images there are, and `what` names the work in the lines of progress. Raises StepError where the
    model answers with NaN or infinity.
    """
    progress = Progress(what, total, "images")
    for images, labels in batches:
        probabilities = classifier(torch.from_numpy(images)).softmax(dim=1).numpy()
        broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
        if broken:
            raise StepError(f"the model answers NaN for {broken} of {len(images)} images; train it anew, more slowly")
        progress.advance(len(images))
        yield images, labels, probabilities
