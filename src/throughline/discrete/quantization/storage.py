"""A quantised model as a file of the size that it claims: Huffman-coded weights inside a safetensors file."""

import hashlib
import json
import math
import os
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from throughline.core._modules import plain_name
from throughline.discrete.quantization.buckets import Codes
from throughline.discrete.quantization.huffman import Coded, decode, encode
from throughline.discrete.quantization.model_quantizer import ModelQuantizer

__all__ = ["load_quantized", "save_quantized"]

KEY, FORMAT = "throughline", "quantised model 1"
STREAM, LENGTHS, RUNS, SCALES, POINTS = "/stream", "/lengths", "/runs", "/scales", "/points"  # no parameter's name


def save_quantized(quantizer: ModelQuantizer, path: str | os.PathLike[str]) -> None:
    """Write the quantised model, before or after its `finalize`, as one safetensors file for `load_quantized`.

    Of "Model compression via distillation and quantization" (arXiv 1802.05668), made into bytes. The symbols of all
    selected parameters are one Huffman-coded bit stream; minimum and step (or range) of every bucket, learned points
    and all other parameters and buffers are stored as they are. The file takes what ``quantizer.size()`` says and the
    buffers, and beside them at most 1 kB, 0.2 kB for each tensor, one byte for each level and four for every 4,096
    weights.

    Args:
        quantizer: a `WeightQuantizer` or `PointQuantizer`, whose model is stored.
        path: of the file; an existing one is replaced.

    Raises:
        ValueError: a selected weight is not finite, or was changed after ``finalize()``.
        RuntimeError: the model has other parameters than when the quantiser was made.
        TypeError: the model's state holds something other than tensors.
    """
    codes = quantizer.codes()
    if quantizer.finalized:
        for name, weight in quantizer.weights.items():
            if not torch.equal(weight.detach().flatten(), codes[name].values().to(weight.dtype)):
                raise ValueError(f"{name} was changed after finalize(), and is not what the quantiser knows")
    parts = list(codes.values())
    symbols = np.concatenate([code.symbols.cpu().numpy() for code in parts])
    coded = encode(symbols, max(code.levels for code in parts))
    tensors = {name: value for name, value in _tensors(quantizer.model).items() if name not in codes}
    tensors |= {
        STREAM: torch.from_numpy(coded.stream),
        LENGTHS: torch.from_numpy(coded.lengths),
        RUNS: torch.from_numpy(coded.runs.view(np.uint8)),
    }
    tensors[SCALES] = torch.cat([torch.stack([code.offset, code.scale]).flatten() for code in parts])
    points = [code.points for code in parts if code.points is not None]
    if points:
        tensors[POINTS] = torch.cat(points)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    shapes = {name: list(weight.shape) for name, weight in quantizer.weights.items()}
    layout = [[name, shapes[name], code.levels, code.bucket_size] for name, code in codes.items()]
    header = {"format": FORMAT, "weights": layout, "sha256": _digest(tensors, layout)}
    save_file(tensors, path, {KEY: json.dumps(header, separators=(",", ":"))})


@torch.no_grad()
def load_quantized(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Read a file of `save_quantized` into a model of the same architecture, and return it.

    Wrappers (data parallel, compiled, averaged), around the model or inside of it, make no difference on either side.

    Weights get the very values that ``finalize()`` gives; everything is checked before anything is written.

    Args:
        model: as the stored one was when it was new; it may be on another device.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, altered or of another kind, or parameters are missing, too many or of another
            shape.
    """
    tensors, layout = _read(path)
    own = _tensors(model)
    stored = {name: tuple(value.shape) for name, value in tensors.items() if not name.startswith("/")}
    stored |= {name: tuple(shape) for name, shape, *_ in layout}
    _check_fit(path, stored, {name: tuple(value.shape) for name, value in own.items()})
    values = {name: value for name, value in tensors.items() if name in own}
    for (name, shape, *_), code in zip(layout, _codes(tensors, layout), strict=True):
        values[name] = code.values().view(shape)
    for name, value in values.items():
        own[name].copy_(value)
    return model


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], list[Any]]:
    """The tensors of a file, and name, shape, levels and bucket size of each quantised one."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(path)}: truncated or not a safetensors file ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)}: a safetensors file, but not one of save_quantized")
    layout: list[Any] = header.get("weights", [])
    if header.get("sha256") != _digest(tensors, layout):
        raise ValueError(f"{os.fspath(path)}: altered since it was written, its content does not fit its checksum")
    return tensors, layout


def _codes(tensors: dict[str, Tensor], layout: list[Any]) -> list[Codes]:
    _, shapes, levels, sizes = zip(*layout, strict=True)
    weights = [math.prod(shape) for shape in shapes]
    lengths, stream, runs = (tensors[name].numpy() for name in (LENGTHS, STREAM, RUNS))
    symbols = torch.from_numpy(decode(Coded(lengths, stream, runs.view(np.uint32)), sum(weights)).astype(np.int32))
    buckets = [-(-number // size) for number, size in zip(weights, sizes, strict=True)]
    scales = torch.split(tensors[SCALES], [2 * number for number in buckets])
    points = torch.split(tensors[POINTS], list(levels)) if POINTS in tensors else [None] * len(layout)
    return [
        Codes(part, number, size, offset=scale.view(2, -1)[0], scale=scale.view(2, -1)[1], points=own)
        for part, number, size, scale, own in zip(
            torch.split(symbols, weights), levels, sizes, scales, points, strict=True
        )
    ]


def _check_fit(path: str | os.PathLike[str], stored: dict[str, Any], own: dict[str, Any]) -> None:
    wrong = [f"the model lacks {name}" for name in stored.keys() - own.keys()]
    wrong += [f"the file lacks {name}" for name in own.keys() - stored.keys()]
    both = stored.keys() & own.keys()
    wrong += [f"{n} is {stored[n]} in the file and {own[n]} in the model" for n in both if stored[n] != own[n]]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"{os.fspath(path)}: not of this model: {'; '.join(sorted(wrong)[:4])}{more}")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, shared ones under their first name, by the names that no wrapper changes."""
    found: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)  # the tensors themselves
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"the state of the model must hold tensors alone, got {type(value).__name__} for {name}")
        found.setdefault(id(value), name)
    plain = {name: plain_name(model, name) for name in found.values()}
    return {own: state[name] for name, own in plain.items() if own is not None}


def _digest(tensors: dict[str, Tensor], layout: list[Any]) -> str:
    total = hashlib.sha256(json.dumps(layout).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
