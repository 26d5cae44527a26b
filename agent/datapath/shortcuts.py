"""The shortcut's program on the host's ends of veths: an optimisation, never a requirement.

Without it (a kernel before 6.6, a pod without a veth whose other end is here) direct connections
pass through the host's network stack, and `obstacle` gives the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agent.datapath import folder, pods, programs, veth
from agent.datapath.attach import Link, Program
from agent.datapath.errors import DatapathError
from agent.datapath.folder import PinFolder
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod, PodCapture
from bpf import layout

_PIN = "shortcut"


class Shortcutting(NamedTuple):
    """A shortcut that is being made, for the namespace with this cookie."""

    cookie: int
    device: int
    link: Callable[[], Link]


class Shortcuts:
    def __init__(
        self,
        image: programs.Image,
        maps: Mapping[str, Map],
        pins: PinFolder,
        captured: Mapping[str, CapturedPod],
        changed: Callable[[CapturedPod], object],
    ) -> None:
        self._image = image
        self._maps = maps
        self._pins = pins
        self._captured = captured
        self._changed = changed
        self._program: Program | None = None  # one for all pods
        self.obstacle: str | None = None

    def close(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None

    def attach(self, pins: Path, pod: PodCapture) -> int:
        """The index of the device with our program; 0: there is none."""
        device = self._place(pins, pod)
        try:
            if device and device_at(pins) != device:
                with self._linking(device, pod.uid)() as link:
                    link.pin(pins / _PIN)
        except DatapathError as exc:
            self.refused(exc)
            return 0
        return device

    def begin(self, pod: PodCapture) -> Shortcutting | None:
        """The part that any thread may do, for a captured pod; None: there is nothing to do."""
        known = self._captured.get(pod.uid)
        if known is None or known.device:
            return None
        pins = self._pins.pods / pods.pin_name(pod.uid)
        device = self._place(pins, pod)
        if device and device_at(pins) == device:
            self._changed(replace(known, device=device))
            return None
        if not device:
            return None
        return Shortcutting(known.cookie, device, self._linking(device, pod.uid))

    def finish(self, uid: str, begun: Shortcutting, link: Link) -> None:
        """Count on a link that was made meanwhile, if the pod is still what it was. The caller
        closes the link."""
        known = self._captured.get(uid)
        if known is not None and known.cookie == begun.cookie and not known.device:
            link.pin(self._pins.pods / pods.pin_name(uid) / _PIN)
            self._changed(replace(known, device=begun.device))

    def refused(self, error: DatapathError) -> None:
        self.obstacle = str(error)

    def _place(self, pins: Path, pod: PodCapture) -> int:
        """The index of the device where our program belongs, 0: there is none; it is on no other
        one any more."""
        device = veth.host_end(pod.netns_fd, pod.addresses[0]) or 0
        if not device or device_at(pins) != device:
            detach(pins, self._maps)
        return device

    def _linking(self, device: int, uid: str) -> Callable[[], Link]:
        """Function that puts our program on a device: it takes the kernel ten milliseconds.
        DatapathError: the kernel refuses."""
        program = self._loaded()
        attach_type = programs.HOOKS["shortcut"].attach_type
        return lambda: Link.create(program, device, attach_type, what=f"shortcut of {uid}")

    def _loaded(self) -> Program:
        if self._program is None:
            self._program = self._image.load("shortcut", self._maps)
        return self._program

    def adopt(self, pins: Path) -> int:
        """Keep what another agent attached, with our program; the index of its device, or 0."""
        if not device_at(pins):
            return 0
        with Link.open(pins / _PIN) as link:
            link.replace(self._loaded())
            return link.info().target


def device_at(pins: Path) -> int:
    """The device that the pod's shortcut is on; 0: there is none, or the device is gone."""
    if not (pins / _PIN).exists():
        return 0
    with Link.open(pins / _PIN) as link:
        return link.info().target


def detach(pins: Path, maps: Mapping[str, Map]) -> None:
    """Have the program leave its device within moments: to wait for it would take ten milliseconds,
    and without entries it does nothing."""
    device = device_at(pins)
    folder.unpin(pins / _PIN)
    if device:
        _forget(maps["shortcuts"], device)


def _forget(shortcuts: Map, device: int) -> None:
    """Remove entries whose end was missed: the device's index will be another device's some day."""
    for key in list(shortcuts):
        raw = shortcuts.lookup(key)
        if raw is None:
            continue  # ended meanwhile
        way = layout.Shortcut.from_buffer_copy(raw)
        if device in (way.source, way.target):
            shortcuts.delete(key)
