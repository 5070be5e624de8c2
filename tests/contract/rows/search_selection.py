"""`throughline.search.selection` and `throughline.search.tabular` compute nothing on tensors: they have no rows."""

from tests.contract.part import Part

NOT_PARTS = {
    "throughline.search.selection.Selection": "the result of a selection",
    "throughline.search.selection.magnitude_selection": "reads decisions out of a module; test_selection.py sorts them",
    "throughline.search.selection.perturbation_selection": "decides a module; test_selection.py has the algorithm",
    "throughline.search.tabular.ArchitectureTable": "a table of numbers in a file; test_tabular.py",
}
PARTS: list[Part] = []
