"""Conversion of any model: what is replaced, what is not, and what is refused."""

import warnings
from typing import Any

import pytest
import torch
from tests.search.best_response.networks import HYPER, X, loud, mlp, network, space
from torch import Tensor, nn

from throughline.search.best_response import (
    BestResponseConv2d,
    BestResponseLinear,
    Hyperparameter,
    HyperparameterSpace,
    TunableDropout,
    convert,
)


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_channel_dropout_stays_channel_dropout(kind: type[nn.Module]) -> None:
    net = convert(nn.Sequential(nn.Linear(6, 8), kind()), space(), dropout={"1": "h1"})
    assert net.model[1].channels  # type: ignore[index]


def test_convolutions_exclusions_and_shared_modules() -> None:
    block = nn.Linear(4, 4)
    plain = nn.ModuleDict(
        {
            "trunk": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(64, 4)),
            "one": block,
            "two": block,
            "head": nn.ModuleDict({"norm": nn.Linear(4, 4), "out": nn.Linear(4, 2)}),
        }
    )
    net = convert(plain, space())
    kinds = {name: type(m) for name, m in net.model.named_modules(remove_duplicate=False)}
    assert kinds["trunk.0"] is BestResponseConv2d
    assert net.model["one"] is net.model["two"]  # type: ignore[index]
    assert net.model["trunk"][0].stride == (2, 2)  # type: ignore[index]
    for exclude, left in (
        (["head"], {"head.norm", "head.out"}),
        (["head.*"], {"head.norm", "head.out"}),
        (["*.norm"], {"head.norm"}),
        (["head.out", "trunk.0"], {"head.out", "trunk.0"}),
    ):
        net = convert(plain, space(), exclude=exclude)
        kept = {name for name, m in net.model.named_modules() if type(m) in (nn.Linear, nn.Conv2d)}
        assert kept == left, exclude


def test_a_single_layer_is_a_model_too() -> None:
    net = convert(nn.Linear(6, 3), space())
    assert isinstance(net.model, BestResponseLinear)
    assert net(X, hyper=HYPER).shape == (5, 3)


class Tied(nn.Module):
    def __init__(self, *, decoder_first: bool) -> None:
        super().__init__()
        if decoder_first:
            self.decoder = nn.Linear(4, 9)
        self.embedding, self.middle = nn.Embedding(9, 4), nn.Linear(4, 4)
        if not decoder_first:
            self.decoder = nn.Linear(4, 9)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.middle(self.embedding(tokens)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("decoder_first", [True, False])
def test_a_tied_decoder_uses_the_elementary_weight_only(decoder_first: bool) -> None:
    net = convert(Tied(decoder_first=decoder_first), space())
    assert type(net.model.decoder) is nn.Linear
    assert net.model.decoder.weight is net.model.embedding.weight  # type: ignore[union-attr]
    assert isinstance(net.model.middle, BestResponseLinear)
    assert net(torch.zeros(5, 3, dtype=torch.int64), hyper=HYPER).shape == (5, 3, 9)


def test_of_two_tied_layers_the_first_responds() -> None:
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    plain[1].weight = plain[0].weight
    net = convert(plain, space())
    assert [type(m) for m in net.model] == [BestResponseLinear, nn.Linear]  # type: ignore[union-attr]
    assert net.model[0].weight is net.model[1].weight  # type: ignore[index]


def test_what_would_be_bypassed_or_lost_stays_as_it_is() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    hooked = nn.Linear(6, 6)
    hooked.register_forward_hook(lambda module, args, out: out * 2)
    plain = nn.ModuleList([normed, hooked, nn.Linear(6, 6), nn.MultiheadAttention(6, 2), nn.Bilinear(6, 6, 2)])
    net = convert(plain, space())
    assert [isinstance(m, BestResponseLinear) for m in net.modules()].count(True) == 1


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer_layers_take_no_fast_path_around_their_weights() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = loud(convert(nn.TransformerEncoder(layer, 2), space())).eval()
    x, mask = torch.randn(5, 4, 8), torch.zeros(5, 4, dtype=torch.bool)
    mask[1, 2:] = True
    slow = net(x, src_key_padding_mask=mask, hyper=HYPER)
    with torch.no_grad():
        torch.testing.assert_close(net(x, src_key_padding_mask=mask, hyper=HYPER), slow)
    assert (slow - net(x, src_key_padding_mask=mask, hyper=HYPER * 2)).abs().max() > 1e-3


class Conv1D(nn.Module):
    """As transformers has it for GPT-2: a linear layer with its weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_conv1d_is_left_with_a_message() -> None:
    plain = nn.ModuleDict({"attn": Conv1D(), "out": nn.Linear(6, 3)})
    with pytest.warns(UserWarning, match=r"^attn \(Conv1D, as in GPT-2\) stays as it is .* name it in exclude") as seen:
        convert(plain, space())
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(plain, space(), exclude=["attn"])
    with pytest.raises(ValueError, match=r"must have an nn.Linear or nn.Conv2d .* attn \(Conv1D, as in GPT-2\) cannot"):
        convert(nn.ModuleDict({"attn": Conv1D()}), space())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": {"7": "h0"}}, r"dropout must name dropout modules of the model \('2'\), got '7'$"),
        ({"dropout": {"1": "h0"}}, r"dropout must name dropout modules of the model \('2'\), got '1', a ReLU"),
        ({"dropout": {"2": "rate"}}, r"dropout must name hyperparameters of the space \(h0, h1\), got 'rate'"),
        ({"exclude": ["head"]}, r"exclude must match modules of the model, got 'head', which matches none"),
        ({"exclude": ["0", "3"]}, r"module must have an nn.Linear or nn.Conv2d of its own to convert, got none$"),
    ],
)
def test_names_what_cannot_be_converted(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(mlp(), space(), **options)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, float("inf")), (-0.5, 0.9)])
def test_a_rate_must_stay_a_rate(low: float, high: float) -> None:
    made = HyperparameterSpace([Hyperparameter("p", 0.2, low, high)])
    with pytest.raises(ValueError, match=r"dropout must have rates that stay in \[0, 1\), got 'p' with range"):
        convert(mlp(), made, dropout={"2": "p"})


def test_wants_a_module_with_layers() -> None:
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got function"):
        convert(lambda x: x, space())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"space must be a HyperparameterSpace, got list"):
        convert(mlp(), [Hyperparameter("p", 0.1)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"module must have an nn.Linear or nn.Conv2d"):
        convert(nn.Sequential(nn.ReLU()), space())
    assert isinstance(network().model[2], TunableDropout)  # type: ignore[index]


def test_wrappers_are_left_out_of_the_copy_and_of_its_paths() -> None:
    inner = nn.Sequential(nn.ReLU(), nn.Dropout(), torch.compile(nn.Linear(8, 8)))
    plain = nn.Sequential(nn.Linear(6, 8), torch.compile(inner), nn.DataParallel(nn.Linear(8, 3)))
    for given in (plain, torch.compile(plain), nn.DataParallel(plain), torch.optim.swa_utils.AveragedModel(plain)):
        net = convert(given, space(), dropout={"1.1": "h0"}, exclude=["2"])  # type: ignore[arg-type]
        kinds = {name: type(m) for name, m in net.model.named_modules()}
        assert kinds == {
            "": nn.Sequential,
            "0": BestResponseLinear,
            "1": nn.Sequential,
            "1.0": nn.ReLU,
            "1.1": TunableDropout,
            "1.2": BestResponseLinear,
            "2": nn.Linear,
        }
        assert net(X, hyper=HYPER).shape == (5, 3)
    assert type(plain[1]) is not nn.Sequential  # what was given stays as it is
    block = nn.Linear(6, 6)
    net = convert(nn.ModuleList([block, torch.compile(block)]), space())  # type: ignore[list-item]
    assert net.model[0] is net.model[1]  # type: ignore[index]
