"""Pointer networks ("Pointer Networks", arXiv 1506.03134): the output is a sequence of positions in the input."""

from throughline.discrete.pointer.attention import PointerAttention
from throughline.discrete.pointer.beam import PAD
from throughline.discrete.pointer.network import STOP, PointerDecoding, PointerNetwork

__all__ = ["PAD", "STOP", "PointerAttention", "PointerDecoding", "PointerNetwork"]
