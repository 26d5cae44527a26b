"""Moves pods and tunnels from pin folders of other versions into ours, without a gap in capture.

While both versions are attached, every connect() meets both. Whichever runs first redirects it to
the pod's own address, and the other one lets own addresses pass: the first one's bookkeeping holds,
and both versions' sockopt programs are on the tunnel to answer. So the order is: everything of ours
first, then the old connect hooks go; after a moment for connects they had under way, the rest.
Established connections live on; only their getpeername() tells the tunnel's address from then on.
"""

import struct
import time
from pathlib import Path

from agent.datapath import cgroups, pods
from agent.datapath.bpfsys import Link, Map
from agent.datapath.folder import Folder, unpin
from agent.datapath.pods import CapturedPod
from agent.datapath.programs import CONNECT_HOOKS

# From connect() to the tunnel's read of its destination: below 10 ms under load.
UNDER_WAY_S = 0.1


def tunnel_cgroups(old: list[Folder], cgroup_root: Path) -> list[Path]:
    """Cgroups that other versions exempt, as far as they still exist."""
    ids = {int(folder.name) for version in old for folder in version.tunnel_folders()}
    found = (cgroups.find_by_id(cgroup_root, cgroup) for cgroup in sorted(ids))
    return [directory for directory in found if directory is not None]


def take_pods(old: list[Folder], ours: Folder) -> None:
    """Pin the old pods' listeners, links and records in our folder as well.

    The caller fills pods[cookie] and puts its own program on each link, as for any pinned pod."""
    for version in old:
        for source in version.pod_folders():
            target = ours.pods / source.name
            complete = all((source / name).exists() for name in ("about", "listeners", "link"))
            if target.exists() or not complete:
                continue
            target.mkdir()
            with Map.open(source / "about") as about:
                about.pin(target / "about")
            with Map.open(source / "listeners") as listeners:
                listeners.pin(target / "listeners")
            for name in ("link", "shortcut"):
                if (source / name).exists():
                    with Link.open(source / name) as link:
                        link.pin(target / name)


def take_shortcuts(old: list[Folder], ours: Map) -> None:
    """Before our program is on the devices: live connections must not fall back to the host's way,
    whose conntrack has missed all they sent."""
    for version in old:
        path = version.maps / "shortcuts"
        if not path.exists():
            continue
        with Map.open(path) as theirs:
            if (theirs.key_bytes, theirs.value_bytes) != (ours.key_bytes, ours.value_bytes):
                continue
            for key in list(theirs):
                value = theirs.lookup(key)
                if value is not None:
                    ours.update(key, value)


def retire(old: list[Folder]) -> None:
    """After ours are attached."""
    for version in old:
        for hook in CONNECT_HOOKS:
            unpin(version.links / hook)
    time.sleep(UNDER_WAY_S)
    for version in old:
        version.remove()


def read_about(folder: Path) -> CapturedPod | None:
    if not (folder / "about").exists():
        return None
    with Map.open(folder / "about") as about:
        data = about.lookup(struct.pack("=I", 0))
    return pods.parse_about(data) if data else None
