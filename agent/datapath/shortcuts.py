"""The shortcut's program on the host's ends of veths: an optimisation, never a requirement.

Without it (a kernel before 6.6, a pod without a veth whose other end is here) direct connections
pass through the host's network stack, and `obstacle` gives the reason.
"""

from collections.abc import Mapping
from pathlib import Path

from agent.datapath import folder, programs, veth
from agent.datapath.attach import Link
from agent.datapath.errors import DatapathError
from agent.datapath.maps import Map
from agent.datapath.pods import PodCapture
from bpf import layout

_PIN = "shortcut"


class Shortcuts:
    def __init__(self, image: programs.Image, maps: Mapping[str, Map]) -> None:
        self._image = image
        self._maps = maps
        self.obstacle: str | None = None

    def attach(self, pins: Path, pod: PodCapture) -> int:
        """The index of the device with our program; 0: there is none."""
        device = veth.host_end(pod.netns_fd, pod.addresses[0]) or 0
        if device and device_at(pins) == device:
            return device
        detach(pins, self._maps)
        if not device:
            return 0
        attach_type = programs.HOOKS["shortcut"].attach_type
        try:
            with (
                self._image.load("shortcut", self._maps) as program,
                Link.create(program, device, attach_type, what=f"shortcut of {pod.uid}") as link,
            ):
                link.pin(pins / _PIN)
        except DatapathError as exc:
            self.obstacle = str(exc)
            return 0
        return device

    def adopt(self, pins: Path) -> int:
        """Keep what another agent attached, with our program; the index of its device, or 0."""
        if not device_at(pins):
            return 0
        with self._image.load("shortcut", self._maps) as program, Link.open(pins / _PIN) as link:
            link.replace(program)
            return link.info().target


def device_at(pins: Path) -> int:
    """The device that the pod's shortcut is on; 0: there is none, or the device is gone."""
    if not (pins / _PIN).exists():
        return 0
    with Link.open(pins / _PIN) as link:
        return link.info().target


def detach(pins: Path, maps: Mapping[str, Map]) -> None:
    device = device_at(pins)
    if device:
        with Link.open(pins / _PIN) as link:
            link.detach()
        _forget(maps["shortcuts"], device)
    folder.unpin(pins / _PIN)


def _forget(shortcuts: Map, device: int) -> None:
    """Remove entries whose end was missed: the device's index will be another device's some day."""
    for key in list(shortcuts):
        raw = shortcuts.lookup(key)
        if raw is None:
            continue  # ended meanwhile
        way = layout.Shortcut.from_buffer_copy(raw)
        if device in (way.source, way.target):
            shortcuts.delete(key)
