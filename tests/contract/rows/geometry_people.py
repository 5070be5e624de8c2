"""Nothing of `throughline.geometry.people` takes tensors to compute with: it draws."""

from tests.contract.part import Part

PARTS: list[Part] = []
NOT_PARTS = {
    "throughline.geometry.people.Outfits": "a tuple of two tensors",
    "throughline.geometry.people.People": "a tuple of tensors",
    **{
        f"throughline.geometry.people.{name}": "draws people: tests/geometry/test_people.py"
        for name in ("a_pose", "random_outfits", "random_poses", "synthetic_people")
    },
}
