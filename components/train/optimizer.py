"""Which parameters learn, how fast, and by which rule."""

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from components.models.artifact import Classifier
from components.step import require
from components.train.recipe import Recipe


def freeze(classifier: Classifier, recipe: Recipe) -> list[nn.Module]:
    """Keeps the first stages from learning; returns the modules that are to behave as in evaluation for it."""
    if not recipe.freeze:
        return []
    from components.models.stages import stages

    found = stages(classifier.network)
    require(recipe.freeze < len(found), "recipe: freeze", recipe.freeze, f"be below {len(found)}, the network's stages")
    kept = {name for stage in found[: recipe.freeze] for name in stage}
    for name, parameter in classifier.network.named_parameters():
        parameter.requires_grad_(name not in kept)
    # Or the statistics of its batch normalisation would go on changing.
    owners = [module for module in classifier.modules() if list(module.parameters())]
    return [module for module in owners if not any(parameter.requires_grad for parameter in module.parameters())]


def optimizer(classifier: Classifier, recipe: Recipe, learning_rate: float, sharded: bool = False) -> Optimizer:
    """The recipe's optimizer; the learning rate is that of the head."""
    groups = _groups(classifier, recipe, learning_rate)
    # fused: one pass over the parameters in place of a dozen.
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=learning_rate, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "sgd":
        momentum = recipe.momentum
        decay = recipe.weight_decay
        return SGD(groups, learning_rate, momentum, weight_decay=decay, nesterov=momentum > 0, fused=not sharded)
    from timm.optim._optim_factory import create_optimizer_v2

    made: Optimizer = create_optimizer_v2(
        groups, opt=recipe.optimizer, lr=learning_rate, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )
    return made


def _groups(classifier: Classifier, recipe: Recipe, learning_rate: float) -> list[dict[str, Any]]:
    """The parameters that learn, by the stage that they are in where stages learn at rates of their own."""
    if recipe.layer_decay == 1:
        return [{"params": [parameter for parameter in classifier.parameters() if parameter.requires_grad]}]
    from components.models.stages import stages

    named = dict(classifier.network.named_parameters())
    found = [[named[name] for name in stage if named[name].requires_grad] for stage in stages(classifier.network)]
    rates = [learning_rate * recipe.layer_decay**above for above in reversed(range(len(found)))]
    return [{"params": stage, "lr": rate} for stage, rate in zip(found, rates, strict=True) if stage]
