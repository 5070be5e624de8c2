"""Additive scores in slices: values, derivatives and memory."""

import os
import subprocess
import sys

import pytest
import torch
from tests.discrete.pointer.models import uniform

from throughline.discrete.pointer.scores import _rows, additive_scores


@pytest.mark.parametrize(("m", "rows"), [(1, 1), (7, 3), (8, 8), (9, 1)])
def test_scores_in_slices_are_those_in_one_piece(monkeypatch: pytest.MonkeyPatch, m: int, rows: int) -> None:
    monkeypatch.setattr("throughline.discrete.pointer.scores._rows", lambda query, key, limit: rows)
    inputs = [uniform(2, m, 4, seed=m).requires_grad_(), uniform(2, 5, 4).requires_grad_(), uniform(4).requires_grad_()]
    weight = uniform(2, m, 5, seed=3)
    ours = additive_scores(*inputs)
    plain = torch.tanh(inputs[0][:, :, None] + inputs[1][:, None]) @ inputs[2]
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weight).sum(), inputs), torch.autograd.grad((plain * weight).sum(), inputs)
    )
    with torch.no_grad():
        torch.testing.assert_close(additive_scores(*inputs), plain)
    if m < 8:
        assert torch.autograd.gradgradcheck(additive_scores, inputs)


def test_slices_keep_within_their_bytes() -> None:
    query, key = torch.empty(128, 50, 512), torch.empty(128, 50, 512)
    assert _rows(query, key, 2**28) == 2**28 // (128 * 50 * 512 * 4) == 20
    assert _rows(query[:1], key[:1], 2**28) == 50
    assert _rows(query, key, 1) == 1


MEASURE = """
import torch
from benchmarks.machine import one_thread, peak_bytes
from throughline.discrete.pointer.scores import additive_scores
B, m, n, H = 16, 64, 64, 128
def plain(q, k, v):
    return torch.tanh(q[:, :, None] + k[:, None]) @ v
def step(scores):
    inputs = [torch.rand(*shape).requires_grad_() for shape in ((B, m, H), (B, n, H), (H,))]
    scores(*inputs).sum().backward()
with one_thread():
    for scores in (additive_scores, plain):
        step(scores)
        print(peak_bytes(lambda: step(scores)) / (4 * B * m * n * H))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_activation_is_held_once() -> None:
    # freed memory goes back to the system at once, so that the peak is that of what is held
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    ran = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment)
    ours, plain = map(float, ran.stdout.split())
    assert ours < 1.25 < 1.9 < plain
