"""The shortcut's program on the host's ends of veths: an optimisation, never a requirement.

Without it (a kernel before 6.6, a pod without a veth whose other end is here) direct connections
pass through the host's network stack, and `obstacle` gives the reason.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.datapath import folder, pods, programs, veth
from agent.datapath.attach import Link, Program
from agent.datapath.errors import DatapathError
from agent.datapath.folder import PinFolder
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod, PodCapture
from bpf import layout

_PIN = "shortcut"


@dataclass(frozen=True, slots=True)
class MadeShortcut:
    """A shortcut that a thread has made, or found, for the namespace with this cookie."""

    cookie: int
    device: int  # where it belongs; 0: nowhere
    before: int  # the device that it was on
    link: Link | None  # to be pinned; None: there is one, or none is wanted

    def close(self) -> None:
        if self.link is not None:
            self.link.close()


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
                with _linked(self._loaded(), device, pod.uid) as link:
                    link.pin(pins / _PIN)
        except DatapathError as exc:
            self.refused(exc)
            return 0
        return device

    def begin(self, uid: str) -> Callable[[PodCapture], MadeShortcut] | None:
        """Function for the part that takes long, in any thread; None: there is nothing to do."""
        known = self._captured.get(uid)
        if known is None or known.device:
            return None
        program, cookie = self._loaded(), known.cookie
        return lambda pod: self._make(pod, cookie, program)

    def _make(self, pod: PodCapture, cookie: int, program: Program) -> MadeShortcut:
        """Every question about a device waits for whoever on this host changes one, and a new link
        takes ten milliseconds. DatapathError: the kernel refuses."""
        before = device_at(self._pins.pods / pods.pin_name(pod.uid))
        device = veth.host_end(pod.netns_fd, pod.addresses[0]) or 0
        link = _linked(program, device, pod.uid) if device and device != before else None
        return MadeShortcut(cookie, device, before, link)

    def finish(self, uid: str, made: MadeShortcut) -> None:
        """Count on what was made meanwhile, if the pod is still what it was. The caller closes
        it."""
        known = self._captured.get(uid)
        if known is None or known.cookie != made.cookie or known.device:
            return
        pins = self._pins.pods / pods.pin_name(uid)
        if made.before != made.device or not made.device:
            detach(pins, self._maps, made.before or None)
        if made.link is not None:
            made.link.pin(pins / _PIN)
            self.obstacle = None
        if made.device:
            self._changed(replace(known, device=made.device))

    def refused(self, error: DatapathError) -> None:
        self.obstacle = str(error)

    def _place(self, pins: Path, pod: PodCapture) -> int:
        """The index of the device where our program belongs, 0: there is none; it is on no other
        one any more."""
        device = veth.host_end(pod.netns_fd, pod.addresses[0]) or 0
        if not device or device_at(pins) != device:
            detach(pins, self._maps)
        return device

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


def _linked(program: Program, device: int, uid: str) -> Link:
    attach_type = programs.HOOKS["shortcut"].attach_type
    return Link.create(program, device, attach_type, what=f"shortcut of {uid}")


def device_at(pins: Path) -> int:
    """The device that the pod's shortcut is on; 0: there is none, or the device is gone."""
    if not (pins / _PIN).exists():
        return 0
    try:
        with Link.open(pins / _PIN) as link:
            return link.info().target
    except DatapathError as exc:
        if exc.number == errno.ENOENT:
            return 0  # its pod was released meanwhile
        raise


def detach(pins: Path, maps: Mapping[str, Map], device: int | None = None) -> None:
    """Have the program leave its device within moments: to wait for it would take ten milliseconds,
    and without entries it does nothing. `device`: the one that it is on; None: the kernel is asked,
    which waits for whoever on this host changes a device."""
    if device is None:
        device = device_at(pins)
    folder.unpin(pins / _PIN)
    if device:
        _forget(maps["shortcuts"], device)


def _forget(shortcuts: Map, device: int) -> None:
    """Remove entries whose end was missed: the device's index will be another device's some day."""
    for key, raw in shortcuts.items():
        way = layout.Shortcut.from_buffer_copy(raw)
        if device in (way.source, way.target):
            shortcuts.delete(key)
