"""Texts as numbers: by characters, or by the words that a file of vectors knows."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from throughline.errors import ThroughlineError

__all__ = ["characters", "encode", "read_vectors"]


def characters(content: str, most: int) -> tuple[Tensor, int]:
    """Characters as numbers, and how many numbers there are; beyond ``most`` the rarer characters are one."""
    points = np.frombuffer(content.encode("utf-32-le"), np.uint32)
    found, codes, counts = np.unique(points, return_inverse=True, return_counts=True)
    if len(found) <= most:
        return torch.from_numpy(codes.astype(np.int64)), len(found)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    return torch.from_numpy(np.minimum(rank, most - 1)[codes]), most


def read_vectors(path: str) -> tuple[dict[str, int], Tensor]:
    """Places of words, from 1 on, and vectors; place 0 is no word, and its vector is zero.

    Args:
        path: a text file with a word and its numbers in each line.

    Raises:
        ThroughlineError: no such file, or not of this form.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ThroughlineError(f"vectors={path}: there is no such file")
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            word, *numbers = line.rstrip().split(" ")
            try:
                row = np.array(numbers, np.float32)
            except ValueError:
                row = np.zeros(0, np.float32)
            if not len(row) or (rows and len(row) != len(rows[0])):
                wanted = f"{len(rows[0])} numbers" if rows else "numbers"
                raise ThroughlineError(f"vectors={file}, line {len(rows) + 1}: a word and {wanted} are wanted")
            if word not in words:
                words[word] = len(rows) + 1
                rows.append(row)
    if not rows:
        raise ThroughlineError(f"vectors={file}: the file is empty")
    return words, torch.from_numpy(np.concatenate([np.zeros((1, len(rows[0])), np.float32), np.stack(rows)]))


def encode(texts: Iterable[str], words: dict[str, int], length: int) -> Tensor:
    """Texts as places of their first known words, (n, length), with zeros behind."""
    known = ([words[w] for w in text.lower().split() if w in words][:length] for text in texts)
    return torch.tensor([row + [0] * (length - len(row)) for row in known], dtype=torch.int64).reshape(-1, length)
