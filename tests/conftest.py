"""What holds for the whole suite: property tests draw the same examples every time, and no clock fails them."""

from hypothesis import settings

settings.register_profile("throughline", deadline=None, derandomize=True)
settings.load_profile("throughline")
