"""`throughline.search.spaces` builds networks of the parts in `throughline.search.supernet`: it has no rows."""

from tests.contract.part import Part

BUILDER = "builds a network of the parts in search.supernet, which have rows; tests/search/spaces writes it out"
NOT_PARTS = {
    "throughline.search.spaces.DARTS_OPS": "names of operations",
    "throughline.search.spaces.NAS_BENCH_201_OPS": "names of operations",
    "throughline.search.spaces.cells_1d": BUILDER,
    "throughline.search.spaces.darts": BUILDER,
    "throughline.search.spaces.mobile_space": BUILDER,
    "throughline.search.spaces.mobile_space_1d": BUILDER,
    "throughline.search.spaces.nas_bench_201": BUILDER,
}
PARTS: list[Part] = []
