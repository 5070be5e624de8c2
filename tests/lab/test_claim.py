"""A claim is found through the face of its package, wherever its class is written."""

import sys
from types import ModuleType

import pytest

from throughline.lab import Claim, find_claim


class Elsewhere(Claim):
    """One thing is more than another."""

    paper = "groco"


class Other(Claim):
    """Another paper's, imported beside it."""

    paper = "anyloss"


def face(monkeypatch: pytest.MonkeyPatch, **names: object) -> None:
    module = ModuleType("throughline.claims.groco")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_class_of_the_paper_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    face(monkeypatch, Claim=Claim, Elsewhere=Elsewhere, Other=Other, number=3)
    assert type(find_claim("groco")) is Elsewhere


def test_none_and_two_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    face(monkeypatch, Claim=Claim, Other=Other)
    with pytest.raises(
        TypeError, match=r"throughline\.claims\.groco must .* one Claim whose paper is 'groco', got none"
    ):
        find_claim("groco")
    face(monkeypatch, Elsewhere=Elsewhere, Second=type("Second", (Elsewhere,), {}))
    with pytest.raises(TypeError, match="got Elsewhere, Second"):
        find_claim("groco")


def test_a_claim_must_run() -> None:
    with pytest.raises(TypeError, match="Elsewhere must implement run"):
        Elsewhere().run("arm", None, 0, log=None)  # type: ignore[arg-type]
    assert Elsewhere.sentence() == "One thing is more than another."
