"""The decoder against arithmetic in NumPy, and torch's own weight normalisation."""

import math

import numpy as np
import pytest
import torch
from tests.geometry.isosurface.shapes import normal
from torch import nn
from torch.nn.utils import parametrizations

from throughline.geometry.isosurface import DeepSDF


def by_hand(decoder: DeepSDF, inputs: np.ndarray, skip: tuple[int, ...]) -> np.ndarray:
    hidden = inputs
    for number, layer in enumerate(decoder.layers):
        if number:
            hidden = np.maximum(hidden, 0)
        if number in skip:
            hidden = np.concatenate([hidden, inputs], -1)
        weight = layer.weight.detach().numpy()
        if hasattr(layer, "length"):
            weight = weight * layer.length.detach().numpy() / np.sqrt((weight**2).sum(1, keepdims=True))
        hidden = hidden @ weight.T + layer.bias.detach().numpy()
    return hidden[..., 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("skip", [(), (2,), (1, 3)])
@pytest.mark.parametrize("degree", [0, 2])
def test_is_the_perceptron_it_says(weight_norm: bool, skip: tuple[int, ...], degree: int) -> None:
    torch.manual_seed(0)
    decoder = DeepSDF(4, (24, 23, 22), skip=skip, fourier_degree=degree, weight_norm=weight_norm).double()
    with torch.no_grad():
        for p in decoder.parameters():
            p += 0.1 * normal(*p.shape)
    x, z = normal(5, 7, 3), normal(5, 1, 4, seed=1)
    angles = [k * math.pi * x.numpy() for k in (1, 2)[:degree]]
    waves = [
        np.stack([wave(a) for a in angles], -1).reshape(5, 7, -1) for wave in (np.sin, np.cos) if angles
    ]  # coordinate by coordinate
    inputs = np.concatenate([np.broadcast_to(z.numpy(), (5, 7, 4)), x.numpy(), *waves], -1)
    np.testing.assert_allclose(decoder(x, z).detach().numpy(), by_hand(decoder, inputs, skip), rtol=1e-9)
    assert decoder(x[0], z[0, 0]).shape == (7,)
    assert decoder(x[0, 0], z).shape == (5, 1)


def test_hidden_are_the_widths_of_what_goes_in() -> None:
    decoder = DeepSDF(16, (64, 64, 64), skip=(2,), weight_norm=False)
    assert [(layer.in_features, layer.out_features) for layer in decoder.layers] == [
        (19, 64),
        (64, 64 - 19),
        (64, 64),
        (64, 1),
    ]
    standard = DeepSDF(256)
    assert [layer.in_features for layer in standard.layers] == [259, 512, 512, 512, 512, 512]


def test_weight_norm_is_torchs() -> None:
    torch.manual_seed(0)
    ours = DeepSDF(2, (8, 8)).double()
    theirs = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    for layer, other in zip(ours.layers, theirs[::2], strict=True):
        other.load_state_dict({"weight": layer.weight, "bias": layer.bias})
        parametrizations.weight_norm(other)
    x, z = normal(9, 3), normal(9, 2)
    theirs_out = theirs(torch.cat([z, x], 1))[:, 0]
    torch.testing.assert_close(ours(x, z), theirs_out)
    ours(x, z).sum().backward()
    theirs_out.sum().backward()
    for layer, other in zip(ours.layers, theirs[::2], strict=True):
        torch.testing.assert_close(layer.length.grad, other.parametrizations.weight.original0.grad)
        torch.testing.assert_close(layer.weight.grad, other.parametrizations.weight.original1.grad)


def test_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    decoder = DeepSDF(0, (256,), dropout=0.5).double()
    x, z = normal(1, 3), normal(1, 0)
    plain = decoder.eval()(x, z)
    assert torch.equal(decoder(x, z), plain)
    decoder.train()
    bias = decoder.layers[1].bias.item()
    drawn = torch.cat([decoder(x, z) for _ in range(400)])
    assert drawn.std() > 0
    assert drawn.mean().item() - bias == pytest.approx(plain.item() - bias, abs=5 * drawn.std().item() / 20)


def test_a_shape_can_be_learned() -> None:
    """A thousand points of a ball: the field is its distance, to a few per cent of its radius."""
    torch.manual_seed(0)
    decoder = DeepSDF(1, (32, 32), skip=(2,))
    x = 2 * torch.rand(1000, 3) - 1
    target = x.norm(dim=1) - 0.5
    optimizer = torch.optim.Adam(decoder.parameters(), 5e-3)
    for _ in range(150):
        loss = (decoder(x, torch.zeros(1)) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_names_the_bad_argument() -> None:
    for arguments, options, message in (
        ((-1,), {}, r"latent_dim must be at least 0, got -1"),
        ((1, ()), {}, r"hidden must have at least one layer, got none"),
        ((1, (8, 0)), {}, r"hidden must be at least 1, got 0"),
        ((1, (8, 8)), {"skip": (0,)}, r"skip must be layers from 1 to 2, got \(0,\)"),
        ((1, (8, 8)), {"skip": (3,)}, r"skip must be layers from 1 to 2, got \(3,\)"),
        ((6, (9, 8)), {"skip": (1,)}, r"hidden must be wider than the 9 inputs before a skip, got \(9, 8\)"),
        ((1,), {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ((1,), {"fourier_degree": -1}, r"fourier_degree must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepSDF(*arguments, **options)  # type: ignore[arg-type]
    decoder = DeepSDF(2, (8,))
    for x, z, error, message in (
        (torch.zeros(4, 2), torch.zeros(2), ValueError, r"points must be \(\.\.\., 3\), got shape \(4, 2\)"),
        (torch.zeros(4, 3), torch.zeros(3), ValueError, r"latent must be \(\.\.\., 2\), got shape \(3,\)"),
        (torch.zeros(4, 3).long(), torch.zeros(2), TypeError, r"points must be floating point"),
        (torch.zeros(4, 3), [0.0, 0.0], TypeError, r"latent must be a tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            decoder(x, z)
