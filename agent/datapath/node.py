"""One node's kernel half: opens or re-adopts it, captures and releases pods; decides no policy.

Everything in force is pinned: an agent's death changes nothing, and `open` finds it again. Links
sit at the cgroup2 root and act only on network namespaces in this node's own `pods` map, so several
nodes may live on one machine, each with a pin root of its own.

Not thread-safe; one agent per pin root (`open` holds a lock while it changes pins).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from agent.datapath import (
    block,
    conflicts,
    conntrack,
    folder,
    kubelet,
    pods,
    programs,
    refused,
    takeover,
    usage,
)
from agent.datapath.attach import Program
from agent.datapath.audit import KernelAudit
from agent.datapath.conflicts import Conflict
from agent.datapath.entries import PlaintextRules
from agent.datapath.errors import DatapathError, PodRefused
from agent.datapath.exempt import Exemptions
from agent.datapath.folder import PinFolder
from agent.datapath.kubelet import KubeletHook
from agent.datapath.locals import Locals
from agent.datapath.lookup import POD_MAPS, LookupPrograms, Prepared
from agent.datapath.maps import Map
from agent.datapath.path_mtu import PathMtu
from agent.datapath.pod_pins import PodPins
from agent.datapath.pods import CapturedPod, PodCapture
from agent.datapath.shortcuts import Shortcuts
from agent.datapath.tables import DirectTables
from agent.datapath.usage import MapUsage
from bpf import layout
from control.model.address import Address


class NodeDatapath:
    def __init__(
        self,
        ours: PinFolder,
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
        self.kubelet = KubeletHook(ours, image, self._maps)
        self._exemptions = Exemptions(ours, image, self._maps)
        self._locals = Locals(self._maps)
        self._lookups = LookupPrograms(image, self._maps)
        self._pins = PodPins(ours, self._lookups, self._maps)
        self._path_mtu = PathMtu()
        self.audit = KernelAudit(ours, cgroup_root, image, self._maps, self._pods)

    @classmethod
    def open(
        cls,
        pin_root: Path,
        cgroup_root: Path,
        cache: Path,
        *,
        source: Path = programs.SOURCE,
        version: str | None = None,
        wants_shortcuts: bool = True,
    ) -> Self:
        """Put the kernel half in force, or find it in force and bring it up to date.

        `wants_shortcuts`: let established direct connections bypass the host's network stack,
        where kernel and devices allow it.
        """
        with folder.prepared(pin_root):
            image = programs.compile_image(source, cache, programs.kernel_features())
            ours = PinFolder(pin_root / f"v{version or layout.layout_hash()}")
            node = cls(ours, cgroup_root, image, wants_shortcuts=wants_shortcuts)
            others = [other for other in folder.versions(pin_root) if other.path != ours.path]
            try:
                node._install(others)
            except BaseException:
                node.close()
                raise
        return node

    def close(self) -> None:
        """Close all descriptors; everything stays in force."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        if self._shortcuts is not None:
            self._shortcuts.close()
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
        folder.unpin(root / folder.HOLDER)
        folder.unpin(root)

    # Installing. Everything is loaded first, so that a program the kernel refuses changes nothing.
    # The hooks that publish and answer are attached before those that capture.

    def _install(self, others: list[PinFolder]) -> None:
        self._folder.make()
        for name in layout.NODE_MAPS:
            if name != "flows" or self._image.uses(name):
                self._maps[name] = folder.adopt_map(self._folder.maps / name, name)
        if self._image.uses("flows"):
            self._direct = DirectTables(self._maps)
            self._shortcuts = Shortcuts(
                self._image, self._maps, self._folder, self._pods, self._changed
            )
        with contextlib.ExitStack() as opened:
            loaded = self._load_all(opened)
            self._exemptions.adopt(loaded)
            self.kubelet.adopt(loaded[kubelet.HOOK])
            if others:
                place = kubelet.found_on(others, self._cgroup_root)
                if place is not None:
                    self.kubelet.attach(*place)
                for directory in takeover.ztunnel_cgroups(others, self._cgroup_root):
                    self._exemptions.add(directory)
                takeover.end_leases(others)
                takeover.take_pods(others, self._folder)
                takeover.take_shortcuts(others, self._maps["shortcuts"])
            self._adopt_pods(taken_over=bool(others))
            for hook in programs.ROOT_HOOKS:
                attach_type = programs.HOOKS[hook].attach_type
                pin = self._folder.links / hook
                folder.adopt_link(pin, loaded[hook], self._cgroup_root, attach_type)
        if others:
            takeover.retire(others)
        # Last: the SYNs of another version's connects have vouchers in its own tables.
        self._locals.keep(self._pods.values())

    def _load_all(self, opened: contextlib.ExitStack) -> dict[str, Program]:
        # They stand in for a pod's.
        of_pod = {each: opened.enter_context(folder.create_map(each)) for each in POD_MAPS}
        with_one = {**self._maps, **of_pod}
        return {
            hook: opened.enter_context(self._image.load(hook, with_one)) for hook in programs.HOOKS
        }

    def _adopt_pods(self, *, taken_over: bool) -> None:
        """Keep pods that are captured completely; remove what a dead agent left half done."""
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
            self._lookups.replace(pins)
            device = self._shortcuts.adopt(pins) if self._shortcuts is not None else 0
            pod = replace(pod, device=device if self._wants_shortcuts else 0)
            self._pods[pod.uid] = pod
            self._maps["pods"].update(key, bytes(pods.pod_value(pod)))

    # Ztunnels: exempt from capture, and the only ones that get answers

    def exempt(self, cgroup: Path) -> None:
        """Treat the processes in this cgroup as a ztunnel."""
        self._exemptions.add(cgroup)

    def unexempt(self, cgroup: Path) -> None:
        """Treat them like all others; the cgroup may be gone already."""
        self._exemptions.remove(cgroup)

    def is_exempt(self, cgroup: Path) -> bool:
        return self._exemptions.holds(cgroup)

    # Pods

    def prepare(self, netns_fd: int, cookie: int, addresses: tuple[Address, ...]) -> Prepared:
        """Do all of a capture that may take long and changes nothing for anybody; in any thread. A
        route waits for whoever on this host changes devices, and the verifier takes its time."""
        self._make_ready(netns_fd, addresses)
        return self._lookups.prepare(cookie, addresses)

    def _make_ready(self, netns_fd: int, addresses: tuple[Address, ...]) -> None:
        block.make_local(netns_fd, addresses)
        self._path_mtu.probe(netns_fd)

    def capture(
        self, pod: PodCapture, *, shortcut_later: bool = False, prepared: Prepared | None = None
    ) -> CapturedPod:
        """Capture the pod, or bring a captured one up to date (new ztunnel, new address).

        `shortcut_later`: a pod without one gets it from `shortcuts`, which takes longer.
        `prepared`: by `prepare`; it stays the caller's to close.
        """
        captured = pods.check(pod)
        pins = self._pins.path(pod.uid)
        for other in self._pods.values():
            if other.cookie == captured.cookie and other.uid != pod.uid:
                raise PodRefused(f"the namespace of {pod.uid} is captured as {other.uid}")
        known = self._pods.get(pod.uid)
        if known is not None and known.cookie != captured.cookie:
            self.release(pod.uid)  # a new sandbox under the old uid
            known = None
        workload_id = self._locals.workload_id(known, captured, self._pods.values())
        captured = replace(captured, workload_id=workload_id)
        pods.pod_value(captured)  # refused before anything is done
        try:
            if known is not None:
                self._locals.remove(known, but=captured)
            ready = None if prepared is None else (prepared.cookie, prepared.addresses)
            if ready != (captured.cookie, pod.addresses):
                self._make_ready(pod.netns_fd, pod.addresses)
            self._pins.make(pod, captured, prepared)
            if not shortcut_later or (known is not None and known.device):
                device = 0 if self.shortcuts is None else self.shortcuts.attach(pins, pod)
                captured = replace(captured, device=device)
            value = pods.pod_value(captured)
            self._maps["pods"].update(pods.cookie_key(captured.cookie), bytes(value))
            self._locals.add(captured)
        except (DatapathError, OSError):
            if known is None:
                self._remove_pins(pins, captured)
            raise
        self._pods[pod.uid] = captured
        return captured

    def hand_over(self, pod: PodCapture) -> CapturedPod:
        """Give the connections of a pod that is captured just so to another ztunnel's listeners.
        What else is in force is left alone: a tenth of a capture."""
        known = self._pods.get(pod.uid)
        if known is None or not self._pins.are_whole(pod.uid):
            return self.capture(pod, shortcut_later=True)
        asked = pods.check(pod)
        if (asked.cookie, asked.addresses) != (known.cookie, known.addresses):
            raise PodRefused(f"{pod.uid} is captured otherwise")
        self._pins.set_listeners(pod)
        return known

    def set_direct(self, uid: str, direct: bool) -> CapturedPod:
        """Allow or forbid direct connections of a captured pod, in both directions."""
        pod = self._changed(replace(self._pods[uid], direct=direct))
        self._pins.write_about(pod)
        return pod

    def _changed(self, pod: CapturedPod) -> CapturedPod:
        self._locals.add(pod)
        self._maps["pods"].update(pods.cookie_key(pod.cookie), bytes(pods.pod_value(pod)))
        self._pods[pod.uid] = pod
        return pod

    @property
    def shortcuts(self) -> Shortcuts | None:
        """Those that are made after a capture; None: none are wanted."""
        return self._shortcuts if self._wants_shortcuts else None

    def set_plaintext(self, uid: str, rules: PlaintextRules) -> None:
        """The ports at which this pod's SYNs without an identity are refused; kept for a pod that
        is not captured yet."""
        self._pins.plaintext.tell(uid, rules, is_captured=uid in self._pods)

    def set_probes(self, uid: str, ports: frozenset[int]) -> None:
        """The ports of this pod to which the kubelet may go; kept in the same way."""
        self._pins.probes.tell(uid, ports, is_captured=uid in self._pods)

    def release(self, uid: str) -> bool:
        """Undo a capture, by uid alone: the pod may be long dead. False: it was not captured."""
        pins = self._pins.path(uid)
        known = self._pods.pop(uid, None)
        if known is None and not pins.exists():
            return False
        self._remove_pins(pins, known or takeover.read_about(pins))
        return True

    def _remove_pins(self, pins: Path, pod: CapturedPod | None) -> None:
        if pod is not None:
            self._locals.remove(pod)
        # The cookie is this pod's alone, unless another uid was captured in the same namespace
        # after it: a late release must not take the newer pod out of the mesh.
        if pod is not None and all(other.cookie != pod.cookie for other in self._others(pod.uid)):
            self._maps["pods"].delete(pods.cookie_key(pod.cookie))
        self._pins.remove(pins, self._device_of(pod))

    def _device_of(self, pod: CapturedPod | None) -> int | None:
        """The device of its shortcut, None: the kernel has to be asked. An index that another pod
        has by now is its."""
        if pod is None or not pod.device:
            return None
        is_reused = any(other.device == pod.device for other in self._others(pod.uid))
        return None if is_reused else pod.device

    def _others(self, uid: str) -> Iterator[CapturedPod]:
        return (pod for pod in self._pods.values() if pod.uid != uid)

    def forget(self, uid: str) -> None:
        """Forget the rules that were told of a pod that is released, and gone."""
        self._pins.plaintext.forget(uid)
        self._pins.probes.forget(uid)

    def forget_entry(self, cookie: int) -> None:
        """Remove what is left of a namespace that is gone."""
        self._maps["pods"].delete(pods.cookie_key(cookie))

    @staticmethod
    def remembers_s() -> float:
        """Seconds for which the host knows a connection that has ended; 0: it knows none."""
        return conntrack.remembers_s()

    def captured(self) -> list[CapturedPod]:
        return [self._pods[uid] for uid in sorted(self._pods)]

    # Looking in

    def refused(self, uid: str) -> refused.Slots:
        """The SYNs to this pod that were refused. DatapathError: it is not captured."""
        return self._pins.refused(uid)

    @property
    def direct(self) -> DirectTables | None:
        """The tables of the direct path; None: see `direct_obstacle`."""
        return self._direct

    @property
    def direct_obstacle(self) -> str | None:
        """The reason why this kernel cannot carry connections itself; None: it can."""
        return None if self._image.uses("flows") else "the kernel has no BPF ring buffer (5.8)"

    @property
    def shortcut_obstacle(self) -> str | None:
        """The reason why direct connections pass through the host's network stack.

        None: as far as is known, they bypass it.
        """
        if not self._wants_shortcuts:
            return "switched off"
        return self._shortcuts.obstacle if self._shortcuts is not None else self.direct_obstacle

    def counters(self) -> dict[str, int]:
        """The programs' counters by name, summed over the processors."""
        return usage.counters(self._maps)

    def usage(self) -> list[MapUsage]:
        """The fill level of every map that can run full, and of the ring."""
        return usage.of_maps(self._maps, self._direct)

    def conflicts(self) -> list[Conflict]:
        """Other programs on our hooks, at the cgroup2 root and in our pods' namespaces."""
        return conflicts.at_root(self._folder, self._cgroup_root) + conflicts.in_pods(self._folder)
