"""One node's kernel half: opens or re-adopts it, captures and releases pods; decides no policy.

All in force is pinned, so an agent's death changes nothing, and `open` finds it again. Links sit at
the cgroup2 root and act only on network namespaces in this node's own `pods` map: several nodes may
live on one machine, each with a pin root of its own.

Not thread-safe; one agent per pin root (`open` takes a lock while it changes pins).
"""

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from agent.datapath import bpfsys, cgroups, conflicts, folder, pods, programs, shortcuts, takeover
from agent.datapath.bpfsys import Link, Map, Program
from agent.datapath.conflicts import Conflict
from agent.datapath.entries import WORKLOAD_ID_MAX
from agent.datapath.errors import KernelError, PodRefused, ProgramRejected
from agent.datapath.pods import CapturedPod, PodCapture
from agent.datapath.shortcuts import Shortcuts
from agent.datapath.tables import DirectTables
from bpf import layout
from control.model.address import Address, mapped

DEFAULT_CACHE = Path("/var/cache/tulle/bpf")


@dataclass(frozen=True, slots=True)
class MapUsage:
    """Entries of a map, or bytes of a ring."""

    name: str
    used: int
    max: int
    drops: int = 0  # what found no room; a map that forgets its oldest entry counts none


@dataclass(frozen=True, slots=True)
class ProgramCheck:
    name: str
    ok: bool
    verifier_tail: str


class NodeDatapath:
    def __init__(
        self,
        ours: folder.Folder,
        cgroup_root: Path,
        image: programs.Image,
        *,
        wants_shortcuts: bool,
    ) -> None:
        """Use `open`."""
        self._wants_shortcuts = wants_shortcuts
        self._folder = ours
        self._cgroup_root = cgroup_root
        self._image = image
        self._maps: dict[str, Map] = {}
        self._pods: dict[str, CapturedPod] = {}
        self._direct: DirectTables | None = None
        self._shortcuts: Shortcuts | None = None

    @classmethod
    def open(
        cls,
        pin_root: Path,
        cgroup_root: Path,
        cache: Path = DEFAULT_CACHE,
        *,
        source: Path = programs.SOURCE,
        version: str | None = None,
        wants_shortcuts: bool = True,
    ) -> Self:
        """Put the kernel half in force, or find it in force and bring it up to date.

        `wants_shortcuts`: new direct connections pass the host's network stack by once they are
        established, where kernel and devices allow it."""
        with folder.prepared(pin_root):
            image = programs.compile_image(source, cache, programs.kernel_features())
            ours = folder.Folder(pin_root / f"v{version or layout.layout_hash()}")
            node = cls(ours, cgroup_root, image, wants_shortcuts=wants_shortcuts)
            others = [other for other in folder.versions(pin_root) if other.path != ours.path]
            try:
                node._install(others)
            except BaseException:
                node.close()
                raise
        return node

    def close(self) -> None:
        """Let go of the fds; all stays in force."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()

    def destroy(self) -> None:
        """Remove every pin, and with it every program of this node."""
        for uid in list(self._pods):
            self.release(uid)
        self.close()
        root = self._folder.path.parent
        for version in folder.versions(root):
            version.remove()
        folder.unpin(root)

    # Installing: first everything is loaded, so that a program the kernel refuses changes nothing;
    # then who publishes and answers is attached before who captures.

    def _install(self, others: list[folder.Folder]) -> None:
        self._folder.make()
        for name in layout.NODE_MAPS:
            if name != "flows" or self._image.uses(name):
                self._maps[name] = folder.adopt_map(self._folder.maps / name, name)
        if self._image.uses("flows"):
            self._direct = DirectTables(self._maps)
            self._shortcuts = Shortcuts(self._image, self._maps)
        with contextlib.ExitStack() as opened:
            loaded = self._load_all(opened)
            self._adopt_tunnels(loaded)
            if others:
                for directory in takeover.tunnel_cgroups(others, self._cgroup_root):
                    self.exempt(directory)
                takeover.take_pods(others, self._folder)
                takeover.take_shortcuts(others, self._maps["shortcuts"])
            self._adopt_pods(taken_over=bool(others))
            for hook in programs.ROOT_HOOKS:
                attach_type = programs.HOOKS[hook].attach_type
                pin = self._folder.links / hook
                folder.adopt_link(pin, loaded[hook], self._cgroup_root, attach_type)
        if others:
            takeover.retire(others)

    def _load_all(self, opened: contextlib.ExitStack) -> dict[str, Program]:
        listeners = opened.enter_context(folder.create_map("listeners"))  # stands in for a pod's
        maps = {**self._maps, "listeners": listeners}
        return {hook: opened.enter_context(self._image.load(hook, maps)) for hook in programs.HOOKS}

    def _adopt_tunnels(self, loaded: dict[str, Program]) -> None:
        self._forget_dead_tunnels()
        for pins in self._folder.tunnel_folders():
            for hook in programs.TUNNEL_HOOKS:
                with Link.open(pins / hook) as link:
                    link.replace(loaded[hook])

    def _adopt_pods(self, *, taken_over: bool) -> None:
        """Pods that are wholly captured stay so; what a dead agent left half done goes."""
        for pins in self._folder.pod_folders():
            pod = takeover.read_about(pins)
            whole = pod is not None and (pins / "link").exists() and (pins / "listeners").exists()
            if pod is None or not whole:
                self._remove_pins(pins, pod)
                continue
            key = pods.cookie_key(pod.cookie)
            if self._maps["pods"].lookup(key) is None and not taken_over:
                self._remove_pins(pins, pod)
                continue
            with self._lookup_program(pins) as program, Link.open(pins / "link") as link:
                if link.info().target:  # 0: the namespace is gone, nothing to run on
                    link.replace(program)
            device = self._shortcuts.adopt(pins) if self._shortcuts is not None else 0
            pod = replace(pod, device=device if self._wants_shortcuts else 0)
            self._pods[pod.uid] = pod
            self._maps["pods"].update(key, bytes(pods.pod_value(pod)))
        self._keep_locals()

    def _lookup_program(self, pins: Path) -> Program:
        with Map.open(pins / "listeners") as listeners:
            return self._image.load("sklookup", {**self._maps, "listeners": listeners})

    # Tunnels: exempt from capture, and the only ones who may ask.

    def exempt(self, cgroup: Path) -> None:
        """Processes in this cgroup are a tunnel; sockets made in it from now on get answers."""
        self._forget_dead_tunnels()
        cgroup_id = cgroups.cgroup_id(cgroup)
        pins = self._folder.tunnels / str(cgroup_id)
        pins.mkdir(exist_ok=True)
        for hook in programs.TUNNEL_HOOKS:
            with self._image.load(hook, self._maps) as program:
                folder.adopt_link(pins / hook, program, cgroup, programs.HOOKS[hook].attach_type)
        self._maps["exempt_cgroups"].update(struct.pack("=Q", cgroup_id), b"\x01")

    def unexempt(self, cgroup: Path) -> None:
        if cgroup.exists():
            self._remove_tunnel(self._folder.tunnels / str(cgroups.cgroup_id(cgroup)))
        self._forget_dead_tunnels()

    def _remove_tunnel(self, pins: Path) -> None:
        self._maps["exempt_cgroups"].delete(struct.pack("=Q", int(pins.name)))
        for hook in programs.TUNNEL_HOOKS:
            folder.unpin(pins / hook)
        folder.unpin(pins)

    def _forget_dead_tunnels(self) -> None:
        """An id may be given to a new directory: exemptions die with their cgroup."""
        alive = set()
        for pins in self._folder.tunnel_folders():
            if self._is_tunnel_alive(pins):
                alive.add(struct.pack("=Q", int(pins.name)))
            else:
                self._remove_tunnel(pins)
        for key in list(self._maps["exempt_cgroups"]):
            if key not in alive:
                self._maps["exempt_cgroups"].delete(key)

    def _is_tunnel_alive(self, pins: Path) -> bool:
        if not all((pins / hook).exists() for hook in programs.TUNNEL_HOOKS):
            return False
        with Link.open(pins / programs.TUNNEL_HOOKS[0]) as link:
            return link.info().target == int(pins.name)

    # Pods

    def capture(self, pod: PodCapture) -> CapturedPod:
        """Capture the pod, or bring a captured one up to date (new tunnel, new address)."""
        captured = pods.check(pod)
        pins = self._folder.pods / pods.pin_name(pod.uid)
        for other in self._pods.values():
            if other.cookie == captured.cookie and other.uid != pod.uid:
                raise PodRefused(f"the namespace of {pod.uid} is captured as {other.uid}")
        known = self._pods.get(pod.uid)
        if known is not None and known.cookie != captured.cookie:
            self.release(pod.uid)  # a new sandbox under the old uid
            known = None
        captured = replace(captured, workload_id=self._workload_id(known, captured))
        pods.pod_value(captured)  # refused before anything is done
        try:
            if known is not None:
                self._remove_locals(known, but=captured)
            self._pin_pod(pins, pod, captured)
            captured = replace(captured, device=self._attach_shortcut(pins, pod))
            value = pods.pod_value(captured)
            self._maps["pods"].update(pods.cookie_key(captured.cookie), bytes(value))
            self._add_locals(captured)
        except (KernelError, OSError):
            if known is None:
                self._remove_pins(pins, captured)
            raise
        self._pods[pod.uid] = captured
        return captured

    def set_direct(self, uid: str, direct: bool) -> CapturedPod:
        """Let a captured pod's connections go without the tunnel, or no more of them."""
        known = self._pods[uid]
        pod = replace(known, direct=direct)
        self._remove_locals(known, but=pod)
        self._maps["pods"].update(pods.cookie_key(pod.cookie), bytes(pods.pod_value(pod)))
        with folder.adopt_map(self._folder.pods / pods.pin_name(uid) / "about", "about") as about:
            about.update(struct.pack("=I", 0), pods.about_bytes(pod))
        self._add_locals(pod)
        self._pods[uid] = pod
        return pod

    def _workload_id(self, known: CapturedPod | None, wanted: CapturedPod) -> int:
        """Its own as long as it is captured at its addresses (verdicts are about those too); never
        one that was somebody else's: verdicts about that one may still be there. 0, no part in the
        direct path, when all are used up."""
        if known is not None and known.workload_id and known.addresses == wanted.addresses:
            return known.workload_id
        only = struct.pack("=I", 0)
        raw = self._maps["workload_last"].lookup(only) or bytes(4)
        # A table of a new layout starts at 0, beside pods with ids that were taken over.
        (given,) = struct.unpack("=I", raw)
        last: int = max([given, *(pod.workload_id for pod in self._pods.values())])
        if last >= WORKLOAD_ID_MAX:
            return 0
        self._maps["workload_last"].update(only, struct.pack("=I", last + 1))
        return last + 1

    def _attach_shortcut(self, pins: Path, pod: PodCapture) -> int:
        """0: no new ones. A program that is there stays, for what is under way."""
        if self._shortcuts is None or not self._wants_shortcuts:
            return 0
        return self._shortcuts.attach(pins, pod)

    # Addresses that may be reached directly: last in, first out.

    def _local_addresses(self, pod: CapturedPod) -> tuple[Address, ...]:
        is_reachable = self._direct is not None and pod.direct and pod.workload_id
        return pod.addresses if is_reachable else ()

    def _add_locals(self, pod: CapturedPod) -> None:
        for address in self._local_addresses(pod):
            assert self._direct is not None
            self._direct.add_local(address, pod.workload_id, pod.device)

    def _remove_locals(self, pod: CapturedPod, but: CapturedPod | None = None) -> None:
        kept = self._local_addresses(but) if but is not None else ()
        for address in pod.addresses:
            if self._direct is not None and address not in kept:
                self._direct.remove_local(address, pod.workload_id)

    def _keep_locals(self) -> None:
        """After an agent that died half way: exactly those of the pods that are captured."""
        wanted = {
            mapped(address): pod
            for pod in self._pods.values()
            for address in self._local_addresses(pod)
        }
        for key in list(self._maps["locals"]):
            if key not in wanted:
                self._maps["locals"].delete(key)
        for pod in self._pods.values():
            self._add_locals(pod)

    def _pin_pod(self, pins: Path, pod: PodCapture, captured: CapturedPod) -> None:
        pins.mkdir(exist_ok=True)
        with folder.adopt_map(pins / "about", "about") as about:
            about.update(struct.pack("=I", 0), pods.about_bytes(captured))
        with folder.adopt_map(pins / "listeners", "listeners") as listeners:
            pods.set_listeners(listeners, pod)
        if (pins / "link").exists():
            return
        attach_type = programs.HOOKS["sklookup"].attach_type
        with (
            self._lookup_program(pins) as program,
            Link.create(program, pod.netns_fd, attach_type, what=f"sk_lookup of {pod.uid}") as link,
        ):
            link.pin(pins / "link")

    def release(self, uid: str) -> bool:
        """Undo a capture, by uid alone: the pod may be long dead. False: it was not captured."""
        pins = self._folder.pods / pods.pin_name(uid)
        known = self._pods.pop(uid, None)
        if known is None and not pins.exists():
            return False
        self._remove_pins(pins, known or takeover.read_about(pins))
        return True

    def _remove_pins(self, pins: Path, pod: CapturedPod | None) -> None:
        if pod is not None:
            self._remove_locals(pod)
        # The cookie is this pod's alone, unless another uid was captured in the same namespace
        # after it: a late release must not take the newer pod out of the mesh.
        if pod is not None and all(other.cookie != pod.cookie for other in self._others(pod.uid)):
            self._maps["pods"].delete(pods.cookie_key(pod.cookie))
        if (pins / "link").exists():
            with Link.open(pins / "link") as link:
                link.detach()
        shortcuts.detach(pins, self._maps)
        for name in ("link", "listeners", "about"):
            folder.unpin(pins / name)
        folder.unpin(pins)

    def _others(self, uid: str) -> Iterator[CapturedPod]:
        return (pod for pod in self._pods.values() if pod.uid != uid)

    def captured(self) -> list[CapturedPod]:
        return [self._pods[uid] for uid in sorted(self._pods)]

    # Looking in

    @property
    def direct(self) -> DirectTables | None:
        """The tables of the direct path; None: see `direct_obstacle`."""
        return self._direct

    @property
    def direct_obstacle(self) -> str | None:
        """Why this kernel cannot carry connections itself; None: it can."""
        return None if self._image.uses("flows") else "the kernel has no BPF ring buffer (5.8)"

    @property
    def shortcut_obstacle(self) -> str | None:
        """Why direct connections take the way through the host; None: nothing known against it."""
        if not self._wants_shortcuts:
            return "switched off"
        return self._shortcuts.obstacle if self._shortcuts is not None else self.direct_obstacle

    def dry_load(self) -> list[ProgramCheck]:
        """Every program once more, from the image in use."""
        return dry_load_image(self._image)

    def counters(self) -> dict[str, int]:
        cpus = bpfsys.cpu_count_possible()
        totals = {}
        for counter in layout.Counter:
            raw = self._maps["counters"].lookup(struct.pack("=I", counter), 8 * cpus) or bytes(8)
            totals[counter.name.lower()] = sum(struct.unpack(f"={len(raw) // 8}Q", raw))
        return totals

    def usage(self) -> list[MapUsage]:
        found = [
            MapUsage(name, opened.count(), layout.MAPS[name].max_entries)
            for name, opened in self._maps.items()
            if layout.MAPS[name].countable
        ]
        if self._direct is not None:
            ring = self._maps["flows"]
            lost = self.counters()["flow_lost"]
            unread = self._direct.unread_bytes()
            found.append(MapUsage("flows", unread, ring.max_entries, lost))
        return found

    def conflicts(self) -> list[Conflict]:
        """Other programs on our hooks, at the cgroup2 root and in our pods' namespaces."""
        return conflicts.at_root(self._folder, self._cgroup_root) + conflicts.in_pods(self._folder)


def dry_load(cache: Path = DEFAULT_CACHE, source: Path = programs.SOURCE) -> list[ProgramCheck]:
    """Would this kernel take every program? Loads all, attaches none, leaves nothing behind."""
    return dry_load_image(programs.compile_image(source, cache, programs.kernel_features()))


def dry_load_image(image: programs.Image) -> list[ProgramCheck]:
    checks = []
    with contextlib.ExitStack() as opened:
        maps = {
            name: opened.enter_context(folder.create_map(name))
            for name in layout.MAPS
            if image.uses(name)
        }
        for name in programs.HOOKS:
            try:
                image.load(name, maps).close()
                checks.append(ProgramCheck(name, True, ""))
            except ProgramRejected as exc:
                checks.append(ProgramCheck(name, False, exc.verifier_tail))
            except KernelError as exc:
                checks.append(ProgramCheck(name, False, str(exc)))
    return checks
