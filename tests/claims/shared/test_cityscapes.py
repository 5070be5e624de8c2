"""Cityscapes: its evaluated classes, and scores against scikit-learn."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from throughline.claims.shared.cityscapes import CLASSES, VOID, confusion, scores, train_ids


def test_label_ids_that_are_not_evaluated_are_void() -> None:
    kinds = [(0, 255), (7, 0), (33, 18), (-1, -1), (9, 20)]
    codes = train_ids([SimpleNamespace(id=label, train_id=code) for label, code in kinds])
    assert codes.shape == (256,)
    assert (codes[7], codes[33]) == (0, 18)
    assert (codes != VOID).sum() == 2


def test_scores_are_scikit_learns() -> None:
    draw = torch.Generator().manual_seed(0)
    truth, found = torch.randint(12, (2, 3, 8, 9), generator=draw)  # of 19: the others do not occur
    truth[0, :2] = VOID
    known = truth != VOID
    table = confusion(truth, found)
    assert table.shape == (CLASSES, CLASSES)
    assert table[:12, :12].tolist() == confusion_matrix(truth[known], found[known]).tolist()
    assert scores(table) == {
        "accuracy": pytest.approx(accuracy_score(truth[known], found[known])),
        "miou": pytest.approx(jaccard_score(truth[known], found[known], average="macro")),
    }
