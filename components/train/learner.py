"""A classifier and all that changes with it from batch to batch: what a checkpoint would have to hold."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from components.models.artifact import Classifier

WEIGHT_DECAY = 0.01
SMOOTHING = 0.05
"""The share of each label that is spread over all classes (Szegedy et al., 2016)."""


class Learner:
    """AdamW under a one-cycle schedule (Smith and Topin, 2018) that rises to `learning_rate` and ends near zero."""

    def __init__(self, classifier: Classifier, batches: int, learning_rate: float) -> None:
        """`batches` is how many there will be in all."""
        self.classifier = classifier
        # fused: one pass over the parameters in place of a dozen.
        self.optimizer = AdamW(classifier.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        self.schedule = OneCycleLR(self.optimizer, learning_rate, total_steps=batches + 1)

    @property
    def learning_rate(self) -> float:
        """Of the next batch."""
        return float(self.schedule.get_last_lr()[0])

    def learn(self, images: Tensor, labels: Tensor) -> float:
        """One step down the gradient of a batch; returns its cross-entropy before it, unsmoothed."""
        logits = self.classifier(images)
        with torch.no_grad():
            # The gradient of the smoothed cross-entropy, written down: softmax minus target. Autograd takes ten small
            # operations to find it.
            logs = F.log_softmax(logits, 1)
            loss = F.nll_loss(logs, labels)
            gradient = logs.exp() - SMOOTHING / logs.shape[1]
            right = torch.full_like(logs[:, :1], SMOOTHING - 1)
            gradient.scatter_add_(1, labels.unsqueeze(1), right).div_(len(labels))
        self.optimizer.zero_grad()
        logits.backward(gradient)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


@torch.inference_mode()
def judge(classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Mean loss and accuracy of a classifier on batches of images and labels."""
    classifier.eval()
    loss = right = count = 0.0
    for images, labels in batches:
        logits = classifier(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return loss / count, right / count
