"""Overrides obey the annotations of the config, and a device is refused before any work."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field, PositiveInt

from throughline.errors import ThroughlineError
from throughline.lab import Device
from throughline.lab.config import check_device, override, restore


@dataclass(frozen=True)
class Config:
    steps: PositiveInt = 3
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    widths: tuple[PositiveInt, ...] = (4, 2)
    kind: Literal["a", "b"] = "a"
    device: Device = "cpu"
    pair: tuple[PositiveInt, PositiveInt] | None = None
    root: str = ""


def test_what_the_annotation_allows_is_taken() -> None:
    texts = ("steps=7", "share=0.25", "widths=[1,2,3]", "kind=b", "device=cuda:1")
    assert override(Config(), texts) == Config(7, 0.25, (1, 2, 3), "b", "cuda:1")


@pytest.mark.parametrize("name", ["12", "true", "[1]", "~/sets"])
def test_a_name_may_look_like_something_else(name: str) -> None:
    assert override(Config(), (f"root={name}",)).root == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps=0", r"--set: steps=0: should be greater than 0; the fields are steps: int = 3"),
        ("steps=-3", r"steps=-3: should be greater than 0"),
        ("steps=true", r"steps wants int, got 'true'"),
        ("steps=many", r"steps wants int, got 'many'"),
        ("share=1", r"share=1: should be less than 1"),
        ("widths=[4,0]", r"widths wants tuple\[int, \.\.\.\], got '\[4,0\]'"),
        (
            "pair=4",
            r"pair wants tuple\[int, int\] \| None, got '4'; the fields are .*kind: 'a' or 'b' = 'a', device: str",
        ),
        ("kind=c", r"kind=c: should be 'a' or 'b'"),
        ("device=banana", r"device=banana: a device is cpu, cuda, .* got 'banana'"),
        ("stepz=1", r"no field 'stepz'; the fields are steps"),
        ("steps", r"'steps' is not of the form key=value"),
    ],
)
def test_what_it_does_not_allow_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ThroughlineError, match=rf"^--set: .*{says.removeprefix('--set: ')}") as caught:
        override(Config(), (text,))
    assert "\n" not in str(caught.value)


def test_a_stored_config_is_checked_too() -> None:
    assert restore(Config, {"steps": 2, "widths": [3]}) == Config(2, widths=(3,))
    with pytest.raises(ThroughlineError, match=r"does not fit this version of the claim: steps: .* greater than 0"):
        restore(Config, {"steps": 0})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    check_device(Config())
    check_device(object())  # not every claim runs on more than the CPU
    with pytest.raises(ThroughlineError, match=r"^device=cuda:1: this machine has no such device .* --set device=cpu$"):
        check_device(Config(device="cuda:1"))
