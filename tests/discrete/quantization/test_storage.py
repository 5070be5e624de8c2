"""Files are as small as the quantiser says, come back bit for bit in a fresh process, and are refused where they do not
fit.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from throughline.discrete.quantization import (
    PointQuantizer,
    WeightQuantizer,
    load_quantized,
    save_quantized,
)

BOTH = pytest.mark.parametrize("kind", [WeightQuantizer, PointQuantizer])
Kind = Callable[..., Any]

MODEL = """
import torch
from torch import nn

def model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(8 * 36, 150), nn.ReLU(), nn.Linear(150, 10)),
    )

def images():
    return torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
"""
FRESH = (
    MODEL
    + """
import sys
from throughline.discrete.quantization import load_quantized
torch.set_num_threads(int(sys.argv[2]))
every = [load_quantized(model(99), file).eval() for file in sys.argv[3:]]
with torch.no_grad():
    torch.save([(loaded.state_dict(), loaded(images())) for loaded in every], sys.argv[1])
"""
)
namespace: dict[str, Any] = {}
exec(MODEL, namespace)
model: Callable[[int], nn.Module] = namespace["model"]
images: Callable[[], Tensor] = namespace["images"]


def trained(kind: Kind, bits: int = 2, **options: Any) -> Any:
    """A quantiser whose model has learned a little, so that all its parts are its own."""
    made = model(0)
    quantizer = kind(made, bits, **options)
    learned = quantizer.parameters() if kind is PointQuantizer else made.parameters()
    optimizer = torch.optim.Adam(learned, 0.01)
    for _ in range(5):
        with quantizer:
            made(images()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return quantizer


def buffers(made: nn.Module) -> int:
    return sum(b.numel() * b.element_size() for b in made.buffers())


def test_a_fresh_process_predicts_the_same(tmp_path: Path) -> None:
    quantizers = {
        f"{kind.__name__}-{bits}": trained(kind, bits) for kind in (WeightQuantizer, PointQuantizer) for bits in (2, 8)
    }
    for name, quantizer in quantizers.items():
        save_quantized(quantizer, tmp_path / name)
    back = tmp_path / "back.pt"
    files = [tmp_path / name for name in quantizers]
    command = [sys.executable, "-c", FRESH, back, str(torch.get_num_threads()), *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for quantizer, (state, out) in zip(quantizers.values(), torch.load(back, weights_only=True), strict=True):
        final = quantizer.finalize().eval()
        for name, value in final.state_dict().items():
            assert torch.equal(state[name], value), name
        with torch.no_grad():
            assert torch.equal(out, final(images()))


@BOTH
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_file_is_as_small_as_the_size_says(kind: Kind, bits: int, tmp_path: Path) -> None:
    quantizer = trained(kind, bits)
    file = tmp_path / "model.safetensors"
    save_quantized(quantizer, file)
    content = quantizer.size().bytes + buffers(quantizer.model)
    tensors = len(quantizer.model.state_dict())
    assert content < file.stat().st_size < content + 1000 + 200 * tensors + 2**bits + 4 * 12
    assert file.stat().st_size < quantizer.size().full_bytes / 2.8


def test_a_million_weights_in_seconds_at_the_stated_overhead(tmp_path: Path) -> None:
    torch.manual_seed(0)
    big = nn.Linear(1024, 1500)
    quantizer = WeightQuantizer(big, 2)
    file = tmp_path / "big.safetensors"
    save_quantized(quantizer, file)
    assert file.stat().st_size < quantizer.size().bytes * 1.005
    fresh = load_quantized(nn.Linear(1024, 1500), file)
    quantizer.finalize()
    assert torch.equal(fresh.weight, big.weight)


@BOTH
def test_before_and_after_finalize_the_file_is_the_same(kind: Kind, tmp_path: Path) -> None:
    quantizer = trained(kind)
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    save_quantized(quantizer, files[0])
    with quantizer:
        save_quantized(quantizer, files[1])
    quantizer.finalize()
    save_quantized(quantizer, files[2])
    assert len({file.read_bytes() for file in files}) == 1


def test_it_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    quantizer = trained(WeightQuantizer)
    save_quantized(quantizer, tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    assert torch.equal(tensors["0.bias"], quantizer.model[0].bias)
    assert torch.equal(tensors["1.running_mean"], quantizer.model[1].running_mean)
    assert "0.weight" not in tensors
    assert tensors["/stream"].dtype == torch.uint8


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(16, 16)
        self.head = nn.Linear(16, 50)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


@BOTH
@pytest.mark.parametrize("size", [256, 100, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shared_and_recurrent_weights_of_every_dtype(
    kind: Kind, size: int | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    quantizer = kind(Tied().to(dtype), 3, bucket_size=size)
    save_quantized(quantizer, tmp_path / "m")
    fresh = load_quantized(Tied().to(dtype), tmp_path / "m")
    assert fresh.head.weight is fresh.embedding.weight
    tokens = torch.arange(50)[:, None]
    assert torch.equal(fresh(tokens), quantizer.finalize()(tokens))
    assert (tmp_path / "m").stat().st_size < quantizer.size().bytes + 2500


def test_levels_of_their_own_and_a_single_symbol(tmp_path: Path) -> None:
    made = model(0)
    quantizer = PointQuantizer(made, 2, levels={"0.weight": 300, "4.weight": 3})
    save_quantized(quantizer, tmp_path / "m")
    fresh = load_quantized(model(1), tmp_path / "m")
    assert torch.equal(fresh[4].weight, quantizer.finalize()[4].weight)
    flat = nn.Linear(4, 4)
    flat.weight.data.fill_(0.3)
    save_quantized(WeightQuantizer(flat, 4), tmp_path / "flat")
    assert torch.equal(load_quantized(nn.Linear(4, 4), tmp_path / "flat").weight, flat.weight)


def test_compiled_models_have_plain_names(tmp_path: Path) -> None:
    plain = model(0)
    quantizer = WeightQuantizer(torch.compile(plain, backend="eager"), 2)
    save_quantized(quantizer, tmp_path / "m")
    fresh = load_quantized(model(1), tmp_path / "m")
    quantizer.finalize()
    assert torch.equal(fresh[4].weight, plain[4].weight)
    again = model(2)
    load_quantized(torch.compile(again, backend="eager"), tmp_path / "m")
    assert torch.equal(again[4].weight, plain[4].weight)


# ---- what is refused ----


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_quantized(trained(WeightQuantizer), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def untouched(change: Callable[[], object], made: nn.Module, error: type[Exception], match: str) -> None:
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(error, match=match):
        change()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_truncated_files(stored: Path, kept: int) -> None:
    stored.write_bytes(stored.read_bytes()[:kept])
    fresh = model(1)
    untouched(lambda: load_quantized(fresh, stored), fresh, ValueError, r"m\.safetensors: truncated or not a safetens")


def test_every_altered_byte_is_noticed(stored: Path) -> None:
    content = stored.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    fresh = model(1)
    for place in [*np.linspace(header, len(content) - 1, 40).astype(int), content.index(b"4.weight") + 20]:
        changed = bytearray(content)
        changed[place] ^= 1
        stored.write_bytes(bytes(changed))
        untouched(lambda: load_quantized(fresh, stored), fresh, ValueError, r"m\.safetensors: (altered|truncated)")


def test_other_files(tmp_path: Path) -> None:
    fresh = model(1)
    with pytest.raises(FileNotFoundError):
        load_quantized(fresh, tmp_path / "nowhere")
    save_file(fresh.state_dict(), tmp_path / "plain")
    untouched(lambda: load_quantized(fresh, tmp_path / "plain"), fresh, ValueError, r"plain: .* not one of save_quant")
    save_file(fresh.state_dict(), tmp_path / "list", {"throughline": "[]"})
    untouched(lambda: load_quantized(fresh, tmp_path / "list"), fresh, ValueError, r"list: .* not one of save_quant")
    save_file(fresh.state_dict(), tmp_path / "broken", {"throughline": "{"})
    untouched(lambda: load_quantized(fresh, tmp_path / "broken"), fresh, ValueError, r"broken: truncated or not")


def test_other_architectures_name_what_differs(stored: Path) -> None:
    for change, match in (
        (lambda m: m.append(nn.Linear(10, 10)), r"not of this model: the file lacks 7\.bias; the file lacks 7\.weight"),
        (lambda m: m.pop(6), r"the model lacks 6\.bias; the model lacks 6\.weight"),
        (
            lambda m: m.__setitem__(6, nn.Linear(150, 11)),
            r"6\.bias is \(10,\) in the file and \(11,\) in the model; 6\.weight is \(10, 150\)",
        ),
        (lambda m: m.__setitem__(1, nn.Identity()), r"the model lacks 1\.bias; .*, and 1 more"),
    ):
        other = model(1)
        change(other)
        untouched(lambda other=other: load_quantized(other, stored), other, ValueError, match)


def test_weights_changed_after_finalize(tmp_path: Path) -> None:
    quantizer = trained(WeightQuantizer)
    quantizer.finalize()[4].weight.data[0, 0] += 0.1
    with pytest.raises(ValueError, match=r"4\.weight was changed after finalize"):
        save_quantized(quantizer, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

        def set_extra_state(self, state: Any) -> None: ...

    with pytest.raises(TypeError, match=r"must hold tensors alone, got dict for _extra_state"):
        save_quantized(WeightQuantizer(Odd(4, 4), 2), tmp_path / "m")


def test_the_header_tells_the_format(stored: Path) -> None:
    with safe_open(stored, "pt") as file:
        assert "quantised model 1" in file.metadata()["throughline"]


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [
    nn.DataParallel,
    AveragedModel,
    lambda m: torch.compile(m, backend="eager"),
    lambda m: AveragedModel(nn.DataParallel(m)),
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["parallel", "averaged", "compiled", "both"])
def test_wrapped_and_plain_models_share_their_files(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    def inner(made: nn.Module) -> nn.Module:
        made[4] = wrap(made[4])  # type: ignore[operator, index]
        return made

    for change in (wrap, inner):
        quantizer = WeightQuantizer(change(model(0)), 2)
        save_quantized(quantizer, tmp_path / "m")
        weights = [p.detach() for p in quantizer.finalize().parameters()]
        for other in (lambda m: m, wrap, inner):
            loaded = load_quantized(other(model(1)), tmp_path / "m")
            assert all(p.equal(q) for p, q in zip(loaded.parameters(), weights, strict=True))
