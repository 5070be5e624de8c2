"""Outputs in evaluation mode: of the whole, whatever the chunk, and nothing changes."""

import pytest
import torch
from torch import nn

from throughline.claims.shared.evaluation import outputs


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_those_of_evaluation_and_the_mode_stays(training: bool) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train(training), torch.randn(7, 3)
    found = outputs(network, x, chunk=3)
    assert network.training == training
    assert not found.requires_grad
    torch.testing.assert_close(found, network[0](x) / (1 + network[1].eps) ** 0.5)  # statistics are still 0 and 1
