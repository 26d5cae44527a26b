"""A pod's pins: what is removed, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest

from agent.datapath import folder, pod_pins, pods, shortcuts
from agent.datapath.folder import PinFolder
from agent.datapath.lookup import POD_MAPS
from agent.datapath.pod_pins import PodPins


class PinnedLink:
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def open(self, path: Path) -> Self:
        assert path.name == "link"
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detach(self) -> None:
        self._said.append("link")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(
        shortcuts, "detach", lambda pins, maps, device: found.append(f"shortcut {device}")
    )
    monkeypatch.setattr(pod_pins, "Link", PinnedLink(found))
    return found


def made(root: Path) -> PodPins:
    lookups: Any = None
    return PodPins(PinFolder(root), lookups, {})


def test_a_folder_is_the_pods_alone(tmp_path: Path) -> None:
    pins = made(tmp_path)
    assert pins.path("a").parent == PinFolder(tmp_path).pods
    assert pins.path("a").name == pods.pin_name("a") != pins.path("b").name


def test_the_link_goes_last_and_nothing_is_left(tmp_path: Path, said: list[str]) -> None:
    pins = made(tmp_path)
    of_pod = pins.path("a")
    of_pod.mkdir(parents=True)
    for name in ("link", "about", *POD_MAPS):
        (of_pod / name).touch()
    pins.remove(of_pod, 4)
    assert said == ["shortcut 4", "link"]
    assert not of_pod.exists()


def test_what_is_left_half_made_is_removed_too(tmp_path: Path, said: list[str]) -> None:
    pins = made(tmp_path)
    pins.path("a").mkdir(parents=True)
    pins.remove(pins.path("a"), None)
    assert said == ["shortcut None"]
    assert not pins.path("a").exists()
    folder.unpin(pins.path("a"))
