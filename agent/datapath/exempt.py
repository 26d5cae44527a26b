"""Exempt cgroups: the sockets of a ztunnel are not captured, and they alone may ask.

One folder of pins for each cgroup, named by its id, with the programs that answer there.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from agent.datapath import cgroups, folder, programs
from agent.datapath.attach import Link, Program
from agent.datapath.folder import PinFolder
from agent.datapath.maps import Map


class Exemptions:
    def __init__(self, ours: PinFolder, image: programs.Image, maps: Mapping[str, Map]) -> None:
        self._folder = ours
        self._image = image
        self._maps = maps

    def adopt(self, loaded: Mapping[str, Program]) -> None:
        """Keep what another agent exempted, with our programs."""
        self._forget_dead()
        for pins in self._folder.ztunnel_folders():
            for hook in programs.ZTUNNEL_HOOKS:
                with Link.open(pins / hook) as link:
                    link.replace(loaded[hook])

    def add(self, cgroup: Path) -> None:
        """Exempt a cgroup; sockets made in it from now on get answers."""
        self._forget_dead()
        cgroup_id = cgroups.cgroup_id(cgroup)
        pins = self._folder.ztunnels / str(cgroup_id)
        pins.mkdir(exist_ok=True)
        for hook in programs.ZTUNNEL_HOOKS:
            with self._image.load(hook, self._maps) as program:
                folder.adopt_link(pins / hook, program, cgroup, programs.HOOKS[hook].attach_type)
        self._maps["exempt_cgroups"].update(struct.pack("=Q", cgroup_id), b"\x01")

    def holds(self, cgroup: Path) -> bool:
        """True while that cgroup is exempt, and gets answers."""
        cgroup_id = cgroups.cgroup_id(cgroup)
        is_listed = self._maps["exempt_cgroups"].lookup(struct.pack("=Q", cgroup_id)) is not None
        return is_listed and _is_alive(self._folder.ztunnels / str(cgroup_id))

    def remove(self, cgroup: Path) -> None:
        """The directory may be gone already."""
        if cgroup.exists():
            self._remove(self._folder.ztunnels / str(cgroups.cgroup_id(cgroup)))
        self._forget_dead()

    def _remove(self, pins: Path) -> None:
        self._maps["exempt_cgroups"].delete(struct.pack("=Q", int(pins.name)))
        for hook in programs.ZTUNNEL_HOOKS:
            folder.unpin(pins / hook)
        folder.unpin(pins)

    def _forget_dead(self) -> None:
        """Let exemptions die with their cgroup: its id may be given to a new directory."""
        alive = set()
        for pins in self._folder.ztunnel_folders():
            if _is_alive(pins):
                alive.add(struct.pack("=Q", int(pins.name)))
            else:
                self._remove(pins)
        for key in list(self._maps["exempt_cgroups"]):
            if key not in alive:
                self._maps["exempt_cgroups"].delete(key)


def _is_alive(pins: Path) -> bool:
    if not all((pins / hook).exists() for hook in programs.ZTUNNEL_HOOKS):
        return False
    for hook in programs.ZTUNNEL_HOOKS:
        with Link.open(pins / hook) as link:
            if link.info().target != int(pins.name):
                return False
    return True
