"""The program that vouches for the kubelet's probes, on one cgroup; finds no kubelet itself.

Its pin, like all others, outlives the agent: probes pass while no agent runs. It falls off with the
cgroup, which systemd makes anew at each start of the kubelet.
"""

from collections.abc import Mapping
from pathlib import Path

from agent.datapath import cgroups, folder, programs
from agent.datapath.attach import Link, Program
from agent.datapath.folder import PinFolder
from agent.datapath.maps import Map

HOOK = "probe"


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

    def attach(self, cgroup: Path) -> None:
        """Vouch for this cgroup's connections, and for those of no other any more."""
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


def directory(old: list[PinFolder], cgroup_root: Path) -> Path | None:
    """The cgroup on which one of these versions has its program, if it is there still."""
    targets = [target_of(version.links / HOOK) for version in old]
    found = (cgroups.find_by_id(cgroup_root, target) for target in targets if target)
    return next((each for each in found if each is not None), None)
