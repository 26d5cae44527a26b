"""Unit tests stay fast: properties try fewer examples here; `tests/fuzz` is where they dig."""

from __future__ import annotations

from hypothesis import settings

EXAMPLES_MAX = 40  # all of tests/unit is to take less than 10 s on two cores

settings.register_profile("unit", max_examples=EXAMPLES_MAX, deadline=None)
settings.load_profile("unit")
