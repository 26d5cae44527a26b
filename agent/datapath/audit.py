"""Compares the kernel with what should be in force, and mends what needs no ztunnel.

Nothing of ours removes a pin or an entry behind our back; administrators, other agents and a second
mount of bpffs do. A pod whose link or listeners are lost has to be captured again: told, not done.
"""

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.datapath import folder, pods, programs, shortcuts
from agent.datapath.attach import Link
from agent.datapath.errors import DatapathError
from agent.datapath.folder import PinFolder
from agent.datapath.locals import Locals
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod
from bpf import layout


class LostPart(StrEnum):
    """A kind of difference between belief and kernel."""

    MAP_PIN = "map_pin_lost"  # mended: the map itself is in our hands
    HOOK = "hook_lost"  # mended: a program on the cgroup2 root
    EXEMPTION = "exemption_lost"  # mended by the caller: a ztunnel's cgroup
    ENTRY = "pod_entry_lost"  # mended: without it what the pod dials left in the clear
    ADDRESS = "pod_address_lost"  # mended: the entry by which local pods know it
    LINK = "pod_link_lost"  # to be captured again: what is dialled to it came in the clear
    LISTENERS = "pod_listeners_lost"  # to be captured again: its connections were refused
    PINS = "pod_pins_lost"  # to be captured again
    SHORTCUT = "pod_shortcut_lost"  # to be captured again: slower, no less safe
    CAPTURE = "capture_lost"  # to be captured again: the kernel half does not know it
    STRANGER = "entry_unknown"  # an entry of a namespace that no captured pod has


_POD_PINS = tuple(
    name for name, spec in layout.MAPS.items() if spec.per_pod and name != "listeners"
)
TO_CAPTURE = frozenset(
    {LostPart.LINK, LostPart.LISTENERS, LostPart.PINS, LostPart.SHORTCUT, LostPart.CAPTURE}
)


@dataclass(frozen=True, slots=True)
class Difference:
    kind: LostPart
    what: str  # a hook, a map, an address, a namespace's cookie
    uid: str = ""


class KernelAudit:
    def __init__(
        self,
        ours: PinFolder,
        cgroup_root: Path,
        image: programs.Image,
        maps: Mapping[str, Map],
        captured: Mapping[str, CapturedPod],
    ) -> None:
        self._folder = ours
        self._cgroup_root = cgroup_root
        self._image = image
        self._maps = maps
        self._captured = captured
        self._locals = Locals(maps)

    def node(self) -> list[Difference]:
        """Differences in what all pods share; all but entries of strangers are mended."""
        self._folder.make()
        found = [*self._pins(), *self._hooks(), *self._strangers()]
        wrong = self._locals.wrong(self._captured.values())
        if wrong:
            self._locals.keep(self._captured.values())
        return [*found, *(Difference(LostPart.ADDRESS, text) for text in wrong)]

    def _pins(self) -> Iterator[Difference]:
        for name, opened in self._maps.items():
            path = self._folder.maps / name
            if _pinned_id(path) != opened.id:
                folder.unpin(path)
                opened.pin(path)
                yield Difference(LostPart.MAP_PIN, name)

    def _hooks(self) -> Iterator[Difference]:
        target = self._cgroup_root.stat().st_ino
        for hook in programs.ROOT_HOOKS:
            pin = self._folder.links / hook
            if _target(pin) == target:
                continue
            with contextlib.ExitStack() as opened:
                of_pod = {
                    name: opened.enter_context(folder.create_map(name))
                    for name, spec in layout.MAPS.items()
                    if spec.per_pod and name not in self._maps
                }
                program = opened.enter_context(self._image.load(hook, {**self._maps, **of_pod}))
                attach_type = programs.HOOKS[hook].attach_type
                folder.unpin(pin)
                folder.adopt_link(pin, program, self._cgroup_root, attach_type)
            yield Difference(LostPart.HOOK, hook)

    def _strangers(self) -> Iterator[Difference]:
        ours = {pods.cookie_key(pod.cookie) for pod in self._captured.values()}
        for key in list(self._maps["pods"]):
            if key not in ours:
                yield Difference(LostPart.STRANGER, str(struct.unpack("=Q", key)[0]))

    def pod(self, uid: str) -> list[Difference]:
        """Differences of one captured pod; those of TO_CAPTURE are left to the caller."""
        pod = self._captured.get(uid)
        if pod is None:
            return [Difference(LostPart.CAPTURE, uid, uid)]
        pins = self._folder.pods / pods.pin_name(uid)
        found = []
        key, value = pods.cookie_key(pod.cookie), bytes(pods.pod_value(pod))
        if self._maps["pods"].lookup(key) != value:
            self._maps["pods"].update(key, value)
            found.append(Difference(LostPart.ENTRY, str(pod.cookie), uid))
        found += [
            Difference(LostPart.PINS, name, uid) for name in _POD_PINS if not (pins / name).exists()
        ]
        if not _target(pins / "link"):
            found.append(Difference(LostPart.LINK, "link", uid))
        empty = _empty_slots(pins / "listeners")
        if empty:
            found.append(Difference(LostPart.LISTENERS, f"{empty} slots", uid))
        if pod.device and shortcuts.device_at(pins) != pod.device:
            found.append(Difference(LostPart.SHORTCUT, f"device {pod.device}", uid))
        return found


def _pinned_id(path: Path) -> int:
    """The id of the map that is pinned there; 0: none."""
    try:
        with Map.open(path) as found:
            return int(found.id)
    except (DatapathError, OSError):
        return 0


def _target(pin: Path) -> int:
    """The target of the link that is pinned there; 0: there is none, or it was detached."""
    try:
        with Link.open(pin) as link:
            return link.info().target
    except (DatapathError, OSError):
        return 0


def _empty_slots(path: Path) -> int:
    """Slots without a listener: a socket that is closed falls out of its map by itself."""
    try:
        with Map.open(path) as listeners:
            return listeners.absent(map(pods.slot_key, range(listeners.max_entries)))
    except (DatapathError, OSError):
        return layout.LISTENERS_MAX
