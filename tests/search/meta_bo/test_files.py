"""Policies as files, whole and damaged."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model
from tests.search.meta_bo.test_process import policy, problem

from throughline.search.meta_bo import load_policy, save_policy


def test_a_policy_and_how_it_was_made_come_back(tmp_path: Path) -> None:
    net, inputs = policy(y_range=(-0.5, 2.0), temperature=0.3), problem(4)
    save_policy(net, tmp_path / "policy.safetensors")
    again = load_policy(tmp_path / "policy.safetensors")
    assert again.options == net.options
    assert not again.training
    assert all(torch.equal(one, other) for one, other in zip(net(*inputs), again(*inputs), strict=True))
    other = policy(seed=9, y_range=(-0.5, 2.0), temperature=0.3)
    load_model(other, tmp_path / "policy.safetensors")  # to safetensors it is a model like any other
    assert all(torch.equal(one, two) for one, two in zip(net(*inputs), other(*inputs), strict=True))


def test_a_file_that_is_no_policy_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.safetensors"
    with pytest.raises(FileNotFoundError):
        load_policy(file)
    save_model(policy(), str(file))
    with pytest.raises(ValueError, match=r"policy\.safetensors does not say how its policy was made; save_policy"):
        load_policy(file)
    save_policy(policy(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is no policy that save_policy wrote, or is damaged"):
        load_policy(file)
    file.write_bytes(
        whole.replace(json.dumps('"num_bars": 12').encode()[1:-1], json.dumps('"num_bars": 13').encode()[1:-1])
    )
    with pytest.raises(ValueError, match=r"is no policy .* or is damaged: .*size mismatch"):
        load_policy(file)


def test_the_policy_inside_of_wrappers_is_what_is_saved(tmp_path: Path) -> None:
    net, file = policy(), tmp_path / "policy.safetensors"
    average = torch.optim.swa_utils.AveragedModel(net)
    for wrapped in (torch.compile(net), torch.nn.DataParallel(net), average):
        save_policy(wrapped, file)  # type: ignore[arg-type]
        again = load_policy(file)
        assert all(map(torch.equal, again.state_dict().values(), net.state_dict().values()))
    with pytest.raises(TypeError, match="policy must be a NeuralAcquisitionProcess, got Linear"):
        save_policy(torch.nn.Linear(2, 2), file)  # type: ignore[arg-type]
