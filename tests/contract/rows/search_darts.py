"""Rows of `throughline.search.darts`."""

from tests.contract.part import Part

NOT_PARTS = {
    "throughline.search.darts.DartsSearcher": "takes steps on a model; darts/test_searcher.py is about them",
    "throughline.search.darts.Searcher": "a protocol: what a method of architecture search consists of",
    "throughline.search.darts.search": "epochs around a searcher; darts/test_loop.py is about it",
}

PARTS: list[Part] = []
