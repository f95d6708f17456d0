"""A classifier and all that changes with it from batch to batch: what a checkpoint has to hold."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from components.models.artifact import Classifier
from components.train.optimizer import freeze, optimizer
from components.train.ranks import ALONE, Ranks
from components.train.recipe import Recipe
from components.train.schedule import schedule

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What a precision multiplies, where it is not the weights' own."""


class Learner:
    """Takes steps down the gradient, as a recipe says."""

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        *,
        classes: int,
        batches: int,
        epochs: int,
        learning_rate: float,
        precision: str = "fp32",
        weights: Tensor | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`batches` is how many there will be in all; `weights`, float32 [K], how much a class weighs in the loss."""
        self.classifier, self.recipe, self.weights = classifier, recipe, weights
        self.classes, self.ranks = classes, ranks
        self.device = classifier.scale.device
        self.frozen = freeze(classifier, recipe)
        self.sharded = ranks.ranks > 1 and recipe.parallel == "fsdp"
        """Whether each rank holds but a part of every tensor."""
        self.average = _average(classifier, recipe.ema, self.sharded) if recipe.ema else None
        # Of whole numbers, such as indices, an average makes others.
        averaged = self.average.module.buffers() if self.average else ()
        pairs = zip(averaged, classifier.buffers(), strict=False)
        self._tables = [(kept, given) for kept, given in pairs if not kept.is_floating_point()]
        self.network = self._distributed()
        self.programs: dict[int, Any] = {}
        """What torch.compile made of it, by the number of images."""
        self.optimizer = optimizer(classifier, recipe, learning_rate, self.sharded)
        self.schedule = schedule(self.optimizer, recipe, batches, epochs)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.type = TYPES.get(precision)

    @property
    def learning_rate(self) -> float:
        """Of the next batch, and of the group whose rate is the highest."""
        return float(max(self.schedule.get_last_lr()))

    @property
    def judged(self) -> Classifier:
        """What is judged and saved: the average, where there is one."""
        return self.average.module if self.average else self.classifier  # type: ignore[return-value]

    def train(self) -> None:
        """Has the network behave as in training, but for what is frozen."""
        self.classifier.train()
        for module in self.frozen:
            module.eval()

    def targets(self, labels: Tensor) -> Tensor:
        """Labels, int64 [N], as probabilities, float32 [N, K]."""
        return torch.zeros(len(labels), self.classes, device=labels.device).scatter_(1, labels.unsqueeze(1), 1.0)

    def learn(self, images: Tensor, targets: Tensor, count: int) -> Tensor:
        """One step down the gradient of this rank's part of a batch of `count` images.

        Returns the part's cross-entropy before it, unsmoothed: a sum over its images, divided by `count`.
        """
        self.optimizer.zero_grad()
        loss = self.descend(images, targets, count)
        self._step()
        return loss

    def descend(self, images: Tensor, targets: Tensor, count: int) -> Tensor:
        """Adds to the gradient, takes no step, and returns what `learn` does."""
        total: Tensor | None = None
        parts = list(zip(*(self.cut(part, count) for part in (images, targets)), strict=True))
        for number, (some, wanted) in enumerate(parts, 1):
            with self.alone() if number < len(parts) else _NOTHING:
                with self.autocast():
                    logits = self.programs.get(len(some), self.network)(some)
                loss, gradient = self._cross_entropy(logits.detach().float(), wanted, count)
                logits.backward(self.scaler.scale(gradient).to(logits.dtype))
            total = loss if total is None else total + loss
        assert total is not None
        return total

    def cut(self, part: Tensor, count: int) -> tuple[Tensor, ...]:
        """Cuts a rank's part of a batch of `count` images into what goes through the network at once.

        All ranks cut theirs into as many, or those of FSDP would wait for each other forever. Each has two images at
        least, if there are as many: from a single one batch normalisation learns nothing.
        """
        return part.tensor_split(max(1, min(self.recipe.accumulate, count // self.ranks.ranks // 2)))

    def compile(self, images: int) -> None:
        """Has torch.compile make a program for parts of so many images; others go through the network as it is."""
        self.programs[images] = torch.compile(self.network, dynamic=False)

    def share_statistics(self) -> None:
        """Gives what is judged the same statistics of batch normalisation on all ranks: the mean of theirs."""
        saved = self.judged.state_dict().keys()  # others never change
        for name, buffer in self.judged.named_buffers():
            if name in saved and buffer.is_floating_point():
                self.ranks.average(buffer)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """In which the network multiplies in the precision of this training."""
        if self.type is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.type)

    def alone(self) -> contextlib.AbstractContextManager[object]:
        """In which gradients stay on this rank; FSDP exchanges them all the same."""
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else contextlib.nullcontext()

    def _cross_entropy(self, logits: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy, unsmoothed, and the gradient of the smoothed one, softmax minus target, times the ranks.

        Written down, because autograd takes ten small operations to find it.
        """
        smoothing = self.recipe.label_smoothing
        logs = F.log_softmax(logits, 1)
        loss = torch.dot(logs.flatten(), targets.flatten()).div_(-count)
        # DDP takes the mean of the ranks' gradients, where the sum is wanted.
        share = count / self.ranks.ranks
        gradient = logs.exp_().sub_(smoothing / logs.shape[1]).sub_(targets, alpha=1 - smoothing).div_(share)
        if self.weights is not None:
            # Their mean over the training split is 1, so that nothing else has to change.
            gradient.mul_((targets @ self.weights).unsqueeze(1))
        return loss, gradient

    def _step(self) -> None:
        if self.recipe.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.recipe.clip)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.classifier)
            for kept, given in self._tables:
                kept.copy_(given)

    @property
    def _parts(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("classifier", "optimizer", "schedule", "scaler")}
        return parts | ({"average": self.average} if self.average else {})

    def state(self) -> dict[str, Any]:
        """Everything that learning changes; where it is sharded, rank 0 has it, and all have to ask for it."""
        return self._whole({name: part.state_dict() for name, part in self._parts.items()})

    def judged_state(self) -> dict[str, Tensor]:
        """A copy of the weights that are judged and saved; where they are sharded, as `state`."""
        return {name: value.clone() for name, value in self._whole(self.judged.state_dict()).items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes on what `state` gave. Raises KeyError, ValueError or RuntimeError where it is another learner's."""
        for name, part in self._parts.items():
            part.load_state_dict(_laid_out(state[name], part))

    def _whole(self, state: dict[str, Any]) -> dict[str, Any]:
        if not self.sharded:
            return state
        from components.train.sharding import whole

        gathered: dict[str, Any] = whole(state, self.ranks)
        return gathered

    def _distributed(self) -> nn.Module:
        """What the images go through: where there are several ranks, gradients are exchanged on the way back."""
        classifier = self.classifier
        if self.ranks.ranks == 1:
            return classifier
        if self.sharded:
            from components.train.sharding import shard

            if self.average:
                shard(self.judged, self.ranks)
            return shard(classifier, self.ranks)
        devices = [self.device] if self.device.type == "cuda" else None
        # Statistics of batch normalisation are not needed before they are judged.
        return DistributedDataParallel(classifier, devices, forward_sync_buffers=False, gradient_as_bucket_view=True)


@torch.no_grad()  # not inference_mode: FSDP would fill the buffers in which it gathers weights with its tensors
def judge(
    classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks = ALONE
) -> tuple[float, float]:
    """Mean loss and accuracy of a classifier on batches of images and labels, those of all ranks; each counts once."""
    classifier.eval()
    loss = right = count = 0.0
    for images, labels in batches:
        logits = classifier(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    loss, right, count = ranks.sum([loss, right, count])
    return loss / count, right / count


_NOTHING = contextlib.nullcontext()


def _average(classifier: Classifier, decay: float, sharded: bool) -> AveragedModel:
    """A copy of the classifier, to become the average of what it is after each step."""
    if sharded:  # one by one: parameters are dealt to the ranks, buffers are not
        return AveragedModel(classifier, avg_fn=get_ema_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
    multi = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(classifier, multi_avg_fn=multi, use_buffers=True)


def _laid_out(state: dict[str, Any], part: Any) -> dict[str, Any]:
    """The state of a module or an optimizer with its tensors laid out as their owner has them.

    Those of an optimizer are taken as they are, and its fused kernels do not look at strides.
    """
    if isinstance(part, nn.Module):
        own = part.state_dict()
        return {name: _like(own[name], value) for name, value in state.items()}
    if isinstance(part, Optimizer):
        owners = [parameter for group in part.param_groups for parameter in group["params"]]
        found = {
            number: {name: _like(owners[number], value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return state | {"state": found}
    return state


def _like(own: Tensor, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    if hasattr(own, "placements"):
        from components.train.sharding import part

        return part(value, own)
    return torch.empty_like(own, dtype=value.dtype).copy_(value)
