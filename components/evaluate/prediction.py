"""What a classifier says of many images, batch by batch."""

import numpy as np
import torch
from numpy.typing import NDArray

from components.models.artifact import Classifier
from components.progress import Progress
from components.step import StepError

BATCH = 1000
"""Images at once: enough to fill the processor, few enough for little memory."""


def predict(classifier: Classifier, images: NDArray[np.uint8], what: str) -> NDArray[np.float32]:
    """The probability of every class for every image: uint8 [N, H, W, C] to float32 [N, K].

    `what` names the work in the lines of progress. Raises StepError where the model answers with NaN or infinity.
    """
    progress = Progress(what, len(images), "images")
    answers = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH])
            answers.append(classifier(batch).softmax(dim=1))
            progress.advance(len(batch))
        probabilities = torch.cat(answers).numpy()
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise StepError(f"the model answers NaN for {broken} of {len(images)} images; train it anew, more slowly")
    return probabilities
