"""The agent as one value: everything that its status, metrics and checks show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.cni.part import CniPart
from agent.config import AgentConfig
from agent.cri.follow import RuntimeFollower
from agent.datapath import programs
from agent.datapath.node import NodeDatapath
from agent.direct.off import Off
from agent.direct.path import DirectPath
from agent.enrol.earlier import EARLIER
from agent.enrol.enroller import Enroller
from agent.enrol.plan import PodState
from agent.intents import Intents
from agent.kubelet.watch import KubeletWatch
from agent.refused import addresses_of_host, last_of_slots
from agent.registry import Registry
from bpf import layout
from control.kit.clock import Clock
from control.kit.errors import KernelError
from control.kit.version import version
from control.model.address import format_address


@dataclass(frozen=True, slots=True)
class Agent:
    """All parts of a running agent."""

    config: AgentConfig
    clock: Clock
    started_at: datetime
    datapath: NodeDatapath
    registry: Registry
    enroller: Enroller
    intents: Intents
    direct: DirectPath | Off
    kubelet: KubeletWatch
    runtime: RuntimeFollower | None = None  # None: pods are registered by others alone
    cni: CniPart | None = None  # None: no plugin of ours is on this node

    def pod_states(self) -> list[tuple[str, PodState, str]]:
        """(uid, state, reason) of every pod that is registered here or expected here."""
        found = []
        for uid in self.enroller.facts.book.pods():
            known = self.enroller.facts.book.state(uid)
            if known is not None:
                found.append((uid, *known))
        for uid, intent in self.enroller.facts.intents.items():
            if uid not in self.enroller.facts.book.pods():
                state = PodState.PENDING if intent.enrolled else PodState.NOT_ENROLLED
                found.append((uid, state, "not_registered"))
        return sorted(found)

    def intents_age_s(self) -> float | None:
        """Age of the last message; 0 while connected, None before the first one."""
        connection = self.intents.connection
        if connection.connected:
            return 0.0
        if connection.heard_s is None:
            return None
        return self.clock.monotonic_s() - connection.heard_s

    def status(self) -> dict[str, Any]:
        return {
            "node": self.config.node,
            "version": version(),
            "started_at": self.started_at.isoformat(),
            "control": self._control(),
            "cni": None if self.cni is None else self.cni.status(),
            "runtime": None if self.runtime is None else self.runtime.status(),
            "ztunnels": self._ztunnels(),
            "pods": [self._pod(*each) for each in self.pod_states()],
            "maps": [
                {
                    "name": usage.name,
                    "used": usage.used,
                    "max": usage.max,
                    "drops": usage.drops,
                }
                for usage in self.datapath.usage()
            ],
            "direct": {
                **self.direct.status(),
                "shortcut": self.datapath.shortcut_obstacle or "on",
            },
            "kubelet": self.kubelet.status(),
            "counters": self.datapath.counters(),
            "kernel": self.enroller.compared.status(),
            "datapath": {
                "pins": str(self.config.pin_root),
                "layout": layout.layout_hash(),
                "programs": sorted(programs.HOOKS),
            },
        }

    def _control(self) -> dict[str, Any]:
        connection = self.intents.connection
        return {
            "address": connection.address,
            "connected": connection.connected,
            "since": _text(connection.since),
            "error": connection.error,
        }

    def _ztunnels(self) -> list[dict[str, Any]]:
        newest = self.enroller.facts.book.node.newest
        return [
            {
                "pid": ztunnel.pid,
                "connected_at": ztunnel.connected_at.isoformat(),
                "ours": ztunnel.is_ours,
                "newest": ztunnel.number == newest,
            }
            for ztunnel in self.enroller.facts.ztunnels.values()
        ]

    def _pod(self, uid: str, state: PodState, reason: str) -> dict[str, Any]:
        intent = self.enroller.facts.intents.get(uid)
        known = self.registry.get(uid)
        pod = self.enroller.facts.book.pods().get(uid)
        addresses = pod.addresses if pod is not None else intent.addresses if intent else ()
        described = intent or known
        entry: dict[str, Any] = {
            "uid": uid,
            "namespace": described.namespace if described else "",
            "name": described.name if described else "",
            "service_account": described.service_account if described else "",
            "addresses": [format_address(each) for each in addresses],
            "netns": known.netns if known else "",
            "state": state.value,
            "reason": reason or (intent.reason if intent else ""),
            "since": _text(self.enroller.facts.book.since(uid)),
        }
        if pod is not None and pod.capture is not None:
            entry["direct"] = pod.capture.direct
            if intent is not None and not pod.capture.direct:
                waits = pod.direct and self.enroller.facts.clock.monotonic_s() < pod.held_until_s
                entry["direct_reason"] = EARLIER if waits else intent.direct_reason
        if intent is not None and intent.probe_ports:
            entry["probe_ports"] = list(intent.probe_ports)
        escaped = self.enroller.uncaptured_connections(uid)
        if escaped is not None:
            entry["uncaptured_connections"] = escaped
        if pod is not None and pod.capture is not None:
            entry["refused"] = self._refused(uid)
        return entry

    def _refused(self, uid: str) -> list[dict[str, Any]]:
        """Connections that the kernel refused in this pod: the last of each sender, and counts."""
        try:
            slots = self.datapath.refused(uid)
        except KernelError:  # it is being released
            return []
        hosts = addresses_of_host() if slots else ()
        return [
            {
                "src": str(syn.source),
                "host": syn.source.address in hosts,
                "dst": str(syn.destination),
                "reason": syn.reason,
                "count": count,
            }
            for syn, count in last_of_slots(slots)
        ]


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
