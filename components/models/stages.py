"""A network as stages, from the stem to the head: the earlier ones are frozen, or learn the more slowly."""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby

from torch import nn

PART = re.compile(r"(features|blocks|cells|stages|dense_stages|encoder\.layers)\.[^.]+|[^.]+")
"""Where a parameter lies: in a part of the network, or in an element of the one part that holds nearly all of it."""


def stages(network: nn.Module) -> list[list[str]]:
    """The names of the network's parameters, each once, in groups from the stem to the head.

    timm says it of most of its networks (`group_matcher`); for all others a part of the network is a stage, and what is
    normalisation alone belongs to the part before it.
    """
    if matcher := getattr(network, "group_matcher", None):
        from timm.models import group_parameters

        with suppress(AssertionError):  # by which timm says that it has no coarse groups
            groups = group_parameters(network, matcher(coarse=True))
            return [groups[number] for number in sorted(groups)]
    return list(_parts(network))


def _parts(network: nn.Module) -> Iterator[list[str]]:
    stage: list[str] = []
    for _, names in groupby((name for name, _ in network.named_parameters()), key=_part):
        part = list(names)
        if stage and any(network.get_parameter(name).ndim > 1 for name in part):
            yield stage
            stage = []
        stage += part
    yield stage


def _part(parameter: str) -> str:
    found = PART.match(parameter)
    assert found
    return found[0]
