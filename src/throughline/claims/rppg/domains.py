"""What the rppg claim trains and tests on."""

from typing import NamedTuple

from throughline.claims.shared.pulse_videos import Video

__all__ = ["Domains"]


class Domains(NamedTuple):
    """Videos to train on, held-out ones like them, and the others that the claim is about."""

    train: list[Video]
    same: list[Video]
    cross: list[Video]
