"""The pins of each captured pod: its folder, tables and link; who is captured is not said here.

What they are and in which order they come is in pods.py.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from agent.datapath import folder, pods, refused, shortcuts
from agent.datapath.attach import Link
from agent.datapath.entries import plaintext_entries, probe_entries
from agent.datapath.folder import PinFolder
from agent.datapath.lookup import POD_MAPS, LookupPrograms, Prepared, pin_maps
from agent.datapath.maps import Map
from agent.datapath.pod_tables import PodTables
from agent.datapath.pods import CapturedPod, PodCapture


class PodPins:
    def __init__(self, ours: PinFolder, lookups: LookupPrograms, maps: Mapping[str, Map]) -> None:
        self._folder = ours
        self._lookups = lookups
        self._maps = maps  # the node's
        self.plaintext = PodTables(ours, "plaintext", plaintext_entries)
        self.probes = PodTables(ours, "probes", probe_entries)

    def path(self, uid: str) -> Path:
        """The folder of this pod's pins, which may not exist."""
        return self._folder.pods / pods.pin_name(uid)

    def make(self, pod: PodCapture, captured: CapturedPod, prepared: Prepared | None) -> None:
        """Make the pod's pins, or bring them up to date."""
        pins = self.path(pod.uid)
        pins.mkdir(exist_ok=True)
        had_maps = all((pins / each).exists() for each in POD_MAPS)
        self.write_about(captured)
        prepared = pin_maps(pins, prepared)
        self.set_listeners(pod)
        self.plaintext.write(pod.uid)
        self.probes.write(pod.uid)
        if self._has_link(pins, with_new_maps=not had_maps):
            return
        self._lookups.attach(pins, pod.netns_fd, prepared, what=f"sk_lookup of {pod.uid}")

    def are_whole(self, uid: str) -> bool:
        """True if the pins of a captured pod are there."""
        pins = self.path(uid)
        return all((pins / each).exists() for each in ("about", *POD_MAPS, "link"))

    def set_listeners(self, pod: PodCapture) -> None:
        """From here on these listeners get the pod's connections."""
        with folder.adopt_map(self.path(pod.uid) / "listeners", "listeners") as listeners:
            pods.set_listeners(listeners, pod)

    def write_about(self, pod: CapturedPod) -> None:
        """Keep what an agent that starts later has to know of the pod."""
        with folder.adopt_map(self.path(pod.uid) / "about", "about") as about:
            about.update(struct.pack("=I", 0), pods.about_bytes(pod))

    def _has_link(self, pins: Path, *, with_new_maps: bool) -> bool:
        """True if the link is there and in force, with a program that reads the pinned maps."""
        if not (pins / "link").exists():
            return False
        with Link.open(pins / "link") as link:
            if link.info().target:
                if with_new_maps:
                    self._lookups.replace(pins)
                return True
        folder.unpin(pins / "link")  # detached by somebody
        return False

    def remove(self, pins: Path, device: int | None) -> None:
        """Detach and remove all that is there; `device` as for `shortcuts.detach`."""
        shortcuts.detach(pins, self._maps, device)
        # After all else: a connect() that was steered before that is on its way to the ztunnel.
        if (pins / "link").exists():
            with Link.open(pins / "link") as link:
                link.detach()
        for name in ("link", *POD_MAPS, "about"):
            folder.unpin(pins / name)
        folder.unpin(pins)

    def refused(self, uid: str) -> refused.Slots:
        """The SYNs to this pod that were refused. DatapathError: it is not captured."""
        with Map.open(self.path(uid) / "refused") as table:
            return refused.read(table)
