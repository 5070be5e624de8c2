"""The regressor's state step by step, where it starts, and what it refuses."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from throughline.core.rotation import rotation_from_6d, so3_exp
from throughline.geometry.body import BodyPrediction, BodyRegressor


def made(**options: object) -> BodyRegressor:
    torch.manual_seed(0)
    net = BodyRegressor(nn.Identity(), 7, **{"joints": 3, "num_betas": 2, "hidden": 5, "dropout": 0.0, **options})
    for decoder in (net.decpose, net.decshape, net.deccam):
        nn.init.normal_(decoder.weight)
    return net.double()


def test_a_new_one_predicts_the_mean() -> None:
    torch.manual_seed(0)
    net = BodyRegressor(nn.Identity(), 7)
    for decoder in (net.decpose, net.decshape, net.deccam):
        bound = 0.01 * math.sqrt(6 / sum(decoder.weight.shape))  # Xavier's, of gain 0.01
        assert 0.8 * bound < decoder.weight.abs().max() <= bound
        nn.init.zeros_(decoder.weight)
        nn.init.zeros_(decoder.bias)
    pose, betas, camera = net(torch.randn(4, 7))
    assert pose.shape == (4, 24, 3, 3)
    torch.testing.assert_close(pose[:, 1:], torch.eye(3).expand(4, 23, 3, 3))
    turned = so3_exp(torch.tensor([math.pi, 0.0, 0.0]))  # y up to y down
    torch.testing.assert_close(pose[:, 0], turned.expand(4, 3, 3), rtol=0, atol=1e-6)
    assert torch.equal(betas, torch.zeros(4, 10))
    torch.testing.assert_close(camera, torch.tensor([0.9, 0.0, 0.0]).expand(4, 3))


def test_starts_at_a_pose_of_ones_own() -> None:
    mean = so3_exp(torch.tensor([[0.3, 0.2, -1.0], [0.0, 2.0, 0.0], [-0.5, 0.5, 0.1]]))
    net = made(mean_pose=mean.double())
    for decoder in (net.decpose, net.decshape, net.deccam):
        nn.init.zeros_(decoder.weight)
        nn.init.zeros_(decoder.bias)
    pose, _, _ = net(torch.zeros(1, 7).double())
    torch.testing.assert_close(pose[0], mean.double())


def by_hand(net: BodyRegressor, features: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    state = torch.cat([net.init_pose, net.init_shape, net.init_cam], 1).expand(len(features), -1)
    decoder = torch.cat([net.decpose.weight, net.decshape.weight, net.deccam.weight])
    bias = torch.cat([net.decpose.bias, net.decshape.bias, net.deccam.bias])
    for _ in range(iterations):
        hidden = torch.cat([features, state], 1) @ net.fc1.weight.T + net.fc1.bias
        state = state + (hidden @ net.fc2.weight.T + net.fc2.bias) @ decoder.T + bias
    return state[:, :18], state[:, 18:20], state[:, 20:]


@pytest.mark.parametrize("iterations", [1, 3])
def test_every_iteration_corrects_the_state(iterations: int) -> None:
    net, features = made(iterations=iterations), torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).double()
    numbers, betas, camera = by_hand(net, features, iterations)
    found = net(features)
    torch.testing.assert_close(found[0], rotation_from_6d(numbers.view(4, 3, 6)))
    torch.testing.assert_close(found[1], betas)
    torch.testing.assert_close(found[2], camera)


def test_drops_twice_an_iteration_in_training_only() -> None:
    net, features = made(dropout=0.5), torch.ones(2, 7).double()
    assert isinstance(net.drop1, nn.Dropout)
    torch.manual_seed(1)
    assert not torch.equal(net(features)[1], net(features)[1])
    net.eval()
    assert torch.equal(net(features)[1], net(features)[1])
    calls = []
    for drop in (net.drop1, net.drop2):
        drop.register_forward_hook(lambda *a: calls.append(1))
    net(features)
    assert len(calls) == 2 * net.iterations


def test_takes_any_encoder() -> None:
    class Both(nn.Module):
        def forward(self, image: Tensor, keypoints: Tensor) -> Tensor:
            return torch.cat([image.flatten(1), keypoints.flatten(1)], 1)

    net = BodyRegressor(Both(), 12 + 6, hidden=4)
    pose, _, _ = net(torch.zeros(5, 3, 2, 2), torch.zeros(5, 3, 2))
    assert pose.shape == (5, 24, 3, 3)


def test_has_the_names_of_spins_parameters() -> None:
    net = BodyRegressor(nn.Identity(), 7)
    wanted = {f"{n}.{p}" for n in ("fc1", "fc2", "decpose", "decshape", "deccam") for p in ("weight", "bias")}
    assert set(net.state_dict()) == wanted | {"init_pose", "init_shape", "init_cam"}
    assert net.fc1.in_features == 7 + 144 + 10 + 3
    assert net.init_pose.shape == (1, 144)


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("features must be at least 1, got 0", {"features": 0}),
        ("joints must be at least 1, got 0", {"joints": 0}),
        ("num_betas must be at least 1, got -1", {"num_betas": -1}),
        ("hidden must be at least 1, got 0", {"hidden": 0}),
        ("iterations must be at least 1, got 0", {"iterations": 0}),
        ("dropout must lie in [0, 1), got 1.0", {"dropout": 1.0}),
        ("mean_pose must be (24, 3, 3), got shape (3, 3)", {"mean_pose": torch.eye(3)}),
    ],
)
def test_refuses_options(match: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        BodyRegressor(nn.Identity(), **{"features": 7, **options})


def test_refuses_an_encoder_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"encoder must give \(B, 7\), got \(2, 8\)"):
        made()(torch.zeros(2, 8).double())
    with pytest.raises(ValueError, match=r"encoder must give \(B, 7\), got \(2, 7, 1\)"):
        made()(torch.zeros(2, 7, 1).double())
    net = made()
    net.encoder = nn.LSTM(3, 7).double()
    with pytest.raises(ValueError, match=r"encoder must give \(B, 7\), got tuple"):
        net(torch.zeros(2, 1, 3).double())


def test_a_prediction_unpacks() -> None:
    pose, betas, transl = BodyPrediction(torch.eye(3).expand(24, 3, 3), torch.zeros(10), torch.ones(3))
    assert pose.shape == (24, 3, 3)
    assert (betas.sum(), transl.sum()) == (0, 3)
