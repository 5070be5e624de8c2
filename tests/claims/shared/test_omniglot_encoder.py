"""The encoder of small pictures: kept to the bit, frozen, and of any picture."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from throughline.claims.shared import omniglot_encoder as module
from throughline.claims.shared.pictures import grey, resized


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache that is empty, and few and small drawings."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    images = (torch.rand(60, 1, 28, 28, generator=seeded()) > 0.8).float()
    monkeypatch.setattr(module, "characters", lambda: (images, torch.arange(60) % 12))
    return tmp_path / "cache" / "throughline" / "encoders"


def weights(seed: int = 0) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in module.omniglot_encoder(1, seed).state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_a_kept_encoder_is_the_fresh_one_to_the_bit(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = weights()
    (file,) = cache_folder.glob("*.safetensors")
    assert not list(cache_folder.glob("*.partial"))
    made: list[int] = []
    taught = module._taught
    monkeypatch.setattr(module, "_taught", lambda epochs, seed: made.append(seed) or taught(epochs, seed))
    assert same(weights(), fresh)
    assert not made  # read from the file
    content = file.read_bytes()
    for broken in (content[:-7], b"", content[:-1] + bytes([content[-1] ^ 1])):
        file.write_bytes(broken)
        assert same(weights(), fresh)
        assert file.read_bytes() == content  # replaced
    assert made == [0, 0, 0]
    assert not same(weights(1), fresh)
    assert len(list(cache_folder.glob("*.safetensors"))) == 2
    monkeypatch.setattr(module, "code_version", lambda: {"source": "another"})
    assert same(weights(), fresh)
    assert made == [0, 0, 0, 1, 0]  # other code, another file


def test_an_encoder_is_frozen_and_in_evaluation_mode(cache_folder: Path) -> None:
    encoder = module.omniglot_encoder(1, 0)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    x = torch.rand(20, 1, 28, 28, generator=seeded())
    alone = module.embed(encoder, x[:1])
    torch.testing.assert_close(module.embed(encoder, x)[:1], alone)  # nothing of the batch in it
    assert same(encoder.state_dict(), state)


def test_thickened_strokes() -> None:
    x = torch.zeros(400, 1, 5, 5)
    x[:, :, 2, 2] = 1
    ink = module.thickened(x, seeded()).sum((1, 2, 3))
    assert set(ink.tolist()) == {1.0, 9.0}
    assert 160 < (ink == 9).sum() < 240


def test_colours_are_seen_as_grey_and_all_sizes_as_one(cache_folder: Path) -> None:
    encoder = module.omniglot_encoder(1, 0)
    x = torch.rand(2, 3, 56, 56, generator=seeded())
    expected = encoder(resized(grey(x), 28))
    torch.testing.assert_close(module.embed(encoder, x), expected)
    torch.testing.assert_close(module.embed(encoder, grey(x)), expected)
