"""A program that was prepared: its maps are pinned together, and beside no older ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.datapath.lookup import POD_MAPS, Prepared, pin_maps


class Kept:
    """A kernel object."""

    def __init__(self) -> None:
        self.closed = False

    def pin(self, path: Path) -> None:
        path.touch()

    def close(self) -> None:
        self.closed = True


def prepared() -> Prepared:
    maps: Any = {name: Kept() for name in POD_MAPS}
    program: Any = Kept()
    return Prepared(maps, program, 8, ())


def test_its_maps_are_pinned(tmp_path: Path) -> None:
    made = prepared()
    assert pin_maps(tmp_path, made) is made
    assert {path.name for path in tmp_path.iterdir()} == set(POD_MAPS)


def test_a_pod_that_has_maps_keeps_them(tmp_path: Path) -> None:
    (tmp_path / POD_MAPS[-1]).touch()
    assert pin_maps(tmp_path, prepared()) is None
    assert pin_maps(tmp_path, None) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_all_descriptors_are_closed() -> None:
    made = prepared()
    made.close()
    assert all(each.closed for each in (made.program, *made.maps.values()))  # type: ignore[attr-defined]
