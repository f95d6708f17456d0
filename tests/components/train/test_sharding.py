import subprocess
import sys

import pytest
import torch
from torch import nn

from components.models.networks import make
from components.train.sharding import blocks, parameters
from tests.components.train.runs import ENVIRONMENT

NETWORKS = ("resnet18", "mobilenet_v2", "densenet121", "timm/convnext_atto", "torchvision/vit_b_32")


@pytest.mark.slow
def test_networks_dealt_to_ranks_learn_what_they_learn_whole() -> None:
    names = ("resnet18", "mobilenet_v2", "timm/convnext_atto")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [*launched, "tests.components.train.sharded", *names]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    found = dict(line.split() for line in ended.stdout.splitlines())
    assert found.keys() == set(names), ended.stderr
    assert max(map(float, found.values())) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_hold_nearly_all_of_a_network_and_none_of_it_twice(name: str) -> None:
    with torch.device("meta"):
        network = make(name, {}, (224, 224, 3), 10)
    total = parameters(network)
    found = list(blocks(network, total // 16))
    assert len({id(parameter) for block in found for parameter in block.parameters()}) == sum(
        len(list(block.parameters())) for block in found
    )
    assert sum(map(parameters, found)) >= 0.8 * total
    assert max(map(parameters, found)) <= 0.45 * total
    assert not any(isinstance(block, nn.ModuleList) for block in found)
