"""Takes pods and ztunnels over from the pins of other versions, without a gap in capture.

While both versions are attached, every connect() passes both. The first one redirects it to an
address that is local to the pod, the second one lets those pass: the first one's records are valid,
and both versions' sockopt programs are there to answer the ztunnel. So all of ours is attached
first, then the old connect hooks go and, after a moment for connects under way, the rest.
Established connections live on; only their getpeername() gives the ztunnel's address from then on.
"""

import struct
import time
from pathlib import Path

from agent.datapath import cgroups, folder, pods
from agent.datapath.attach import Link
from agent.datapath.folder import PinFolder, unpin
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod
from agent.datapath.programs import CONNECT_HOOKS
from bpf import layout

# From connect() until the ztunnel reads its destination: below 10 ms under load.
UNDER_WAY_S = 0.1


def ztunnel_cgroups(old: list[PinFolder], cgroup_root: Path) -> list[Path]:
    """Cgroups that other versions exempt and that still exist."""
    ids = {int(ztunnel.name) for version in old for ztunnel in version.ztunnel_folders()}
    found = (cgroups.find_by_id(cgroup_root, cgroup) for cgroup in sorted(ids))
    return [directory for directory in found if directory is not None]


def end_leases(old: list[PinFolder]) -> None:
    """From now on their connect() sends nothing directly: ours does not know their vouchers.

    The state has one key in every version, and zeros in it mean that nothing goes direct.
    """
    for version in old:
        path = version.maps / "direct_state"
        if path.exists():
            with Map.open(path) as state:
                state.update(struct.pack("=I", 0), bytes(state.value_bytes))


def take_pods(old: list[PinFolder], ours: PinFolder) -> None:
    """Pin the old pods' records, listeners and links in our folder too.

    The caller fills pods[cookie] and puts its own program on each link, as for any pinned pod.
    """
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
                _pin_listeners(listeners, target / "listeners")
            _pin_probes(source / "probes", target / "probes")
            for name in ("link", "shortcut"):
                if (source / name).exists():
                    with Link.open(source / name) as link:
                        link.pin(target / name)


def _pin_listeners(old: Map, path: Path) -> None:
    """Pin the old map, or an empty one if ours has other slots.

    A map's sockets cannot be read. Until the ztunnel has handed its listeners over again, at once
    after our start, the pod's new connections are refused.
    """
    if old.max_entries == layout.LISTENERS_MAX:
        old.pin(path)
        return
    with folder.create_map("listeners") as empty:
        empty.pin(path)


def _pin_probes(source: Path, target: Path) -> None:
    """Pin the old table, if there is one of our form: a probe must not fail for an upgrade."""
    spec = layout.MAPS["probes"]
    if source.exists():
        with Map.open(source) as old:
            if (old.key_bytes, old.value_bytes) == (spec.key_bytes, spec.value_bytes):
                old.pin(target)


def take_shortcuts(old: list[PinFolder], ours: Map) -> None:
    """Copy the shortcuts of live connections, before our program is on the devices.

    They must not fall back to the host's stack, whose conntrack has missed all they sent.
    """
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


def retire(old: list[PinFolder]) -> None:
    """Remove the other versions; all of ours must be attached."""
    for version in old:
        for hook in CONNECT_HOOKS:
            unpin(version.links / hook)
    time.sleep(UNDER_WAY_S)
    for version in old:
        version.remove()


def read_about(pins: Path) -> CapturedPod | None:
    """The record in a pod's pins; None: there is none yet."""
    if not (pins / "about").exists():
        return None
    with Map.open(pins / "about") as about:
        data = about.lookup(struct.pack("=I", 0))
    return pods.parse_about(data) if data else None
