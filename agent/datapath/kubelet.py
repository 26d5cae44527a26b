"""The program that vouches for the kubelet's probes, on one cgroup; finds no kubelet itself.

Its pin, like all others, outlives the agent: probes pass while no agent runs. It falls off with the
cgroup, which systemd makes anew at each start of the kubelet.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from agent.datapath import cgroups, folder, programs
from agent.datapath.attach import Link, Program
from agent.datapath.folder import PinFolder
from agent.datapath.maps import Map

HOOK = "probe"
_NETNS = "kubelet_netns"
_ONLY = struct.pack("=I", 0)  # the key of a map with one entry


class KubeletHook:
    def __init__(self, ours: PinFolder, image: programs.Image, maps: Mapping[str, Map]) -> None:
        self._pin = ours.links / HOOK
        self._image = image
        self._maps = maps

    def adopt(self, program: Program) -> None:
        """Keep it where another agent attached it, with our program."""
        if not self.target():
            folder.unpin(self._pin)
            return
        with Link.open(self._pin) as link:
            link.replace(program)

    def attach(self, cgroup: Path, netns_cookie: int) -> None:
        """Vouch for connections of this cgroup out of that network namespace, and no others."""
        self._maps[_NETNS].update(_ONLY, struct.pack("=Q", netns_cookie))
        with self._image.load(HOOK, self._maps) as program:
            folder.adopt_link(self._pin, program, cgroup, programs.HOOKS[HOOK].attach_type)

    def detach(self) -> None:
        if self._pin.exists():
            with Link.open(self._pin) as link:
                link.detach()
        folder.unpin(self._pin)

    def target(self) -> int:
        """The id of the cgroup that it is on; 0: it is on none, or on one that is gone."""
        return target_of(self._pin)


def target_of(pin: Path) -> int:
    if not pin.exists():
        return 0
    with Link.open(pin) as link:
        return link.info().target


def found_on(old: list[PinFolder], cgroup_root: Path) -> tuple[Path, int] | None:
    """The cgroup and namespace for which one of these versions vouches, if they are there still."""
    for version in old:
        target, table = target_of(version.links / HOOK), version.maps / _NETNS
        directory = cgroups.find_by_id(cgroup_root, target) if target else None
        if directory is None or not table.exists():
            continue
        with Map.open(table) as opened:
            return directory, int(struct.unpack("=Q", opened.lookup(_ONLY) or bytes(8))[0])
    return None
