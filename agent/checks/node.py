"""Checks of a running agent: its ztunnels, certificates, control plane, maps and pods."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from agent.checks.check import Check, Result, judged
from agent.checks.host import host_checks
from agent.checks.leaves import certificates_in_trouble
from agent.checks.leftovers import left_behind
from agent.direct.reasons import MEANINGS
from agent.enrol.plan import PodState
from agent.fetch import SIGN_OF_LIFE_S, get_json
from agent.kubelet.reasons import Unrecognised
from agent.status import Agent
from bpf.layout import MAPS, MapType
from control.kit.errors import KernelError, MeshError

MAP_PRESSURE_WARNING = 0.8
INTENTS_AGE_WARNING_S = 60.0  # a restart of the control plane takes seconds
_FETCH_TIMEOUT_S = 5.0
DIFFERENCES_SHOWN_S = 86400.0


async def node_checks(agent: Agent) -> list[Check]:
    """The checks of the host and of its running agent, in the order of their codes' categories."""
    chosen = agent.config
    host = await asyncio.to_thread(host_checks, chosen.cgroup_root, chosen.bpffs, chosen.cache)
    return [
        *host,
        _conflicts(agent),
        left_behind(chosen),
        _ztunnel(agent),
        _direct(agent),
        _kubelet(agent),
        await _certificates(agent),
        *_control(agent),
        *map_pressure((usage.name, usage.used, usage.max) for usage in agent.datapath.usage()),
        _pods(agent),
        _kernel(agent),
        *_runtime(agent),
        *_cni(agent),
    ]


def _conflicts(agent: Agent) -> Check:
    code, category = "TUL0601", "hooks"
    description = "no other program changes connections on our hooks"
    try:
        foreign = [each for each in agent.datapath.conflicts() if not each.is_tulle]
    except (KernelError, OSError) as exc:
        return judged(code, category, description, error=str(exc), hint="run as root")
    names = ", ".join(f"{each.program_name or '?'} ({each.hook})" for each in foreign)
    return judged(
        code,
        category,
        description,
        error=names,
        hint="a CNI's socket load balancing must leave pods alone: for Cilium, "
        "socketLB.hostNamespaceOnly=true",
        level=Result.WARNING,
    )


def _ztunnel(agent: Agent) -> Check:
    count = len(agent.enroller.facts.ztunnels)
    captured = len(agent.enroller.facts.book.report())
    return judged(
        "TUL0701",
        "ztunnel",
        "a ztunnel is connected",
        error="" if count else f"none; {captured} captured pods refuse all connections",
        hint=f"start tulle-ztunnel; it dials {agent.config.zds}",
    )


# Reasons for having no direct path. An operator's choice is no fault; for others, a remedy.
_CHOSEN = frozenset({"no_direct"})
_DIRECT_HINTS = {
    "no_ztunnel": "Tulle's own ztunnel dials direct.sock as well as zds.sock; Istio's does not",
    "flows_full": "more than one agent can follow: the rest goes through the tunnel",
}


def _direct(agent: Agent) -> Check:
    status = agent.direct.status()
    reason = str(status["reason"])
    chosen = reason in _CHOSEN
    return judged(
        "TUL0703",
        "ztunnel",
        "connections inside this node may go direct" + (" (switched off)" if chosen else ""),
        error="" if chosen else MEANINGS.get(reason, reason),
        hint=_DIRECT_HINTS.get(reason, "meanwhile they go through the tunnel"),
        level=Result.WARNING,
    )


# Processes that start a kubelet's containers; in k3s and its kin they are part of one service.
_RUNTIMES = ("containerd", "crio", "conmon", "cri-dockerd", "dockerd", "runc")


def _kubelet(agent: Agent) -> Check:
    """A host without Kubernetes has no kubelet: it is missed only where pods have probes."""
    sight = agent.kubelet.sight
    probed = sum(1 for each in agent.enroller.facts.intents.values() if each.probe_ports)
    code, category = "TUL0704", "kubelet"
    if sight.kubelet is not None:
        description = f"the kubelet's probes are recognised ({sight.kubelet.cgroup})"
        others = [each for each in sight.kubelet.shared_with if not each.startswith(_RUNTIMES)]
        shared = f"its cgroup has processes that are not its own: {', '.join(others)}"
        hint = "to probed ports they pass STRICT too: give the kubelet a cgroup of its own"
        error = shared if others else ""
    else:
        absent = sight.reason in (Unrecognised.NOT_LISTENING, Unrecognised.OFF) and not probed
        reason = sight.reason or Unrecognised.SEARCHING
        description = "the kubelet's probes are recognised" + (" (no kubelet)" if absent else "")
        told = reason.meaning + (f": {sight.error}" if sight.error else "")
        error = "" if absent else f"{told}; under STRICT the probes of {probed} pods fail"
        hint = reason.remedy
    return judged(code, category, description, error=error, hint=hint, level=Result.WARNING)


async def _certificates(agent: Agent) -> Check:
    code, category = "TUL0702", "ztunnel"
    description = "workload certificates are valid and renewed in time"
    path = agent.config.folder / "ztunnel.sock"
    if not path.exists():
        return judged(
            code,
            category,
            description,
            error=f"no admin socket {path}",
            hint="only Tulle's own ztunnel has one",
            level=Result.WARNING,
        )
    try:
        await asyncio.to_thread(get_json, path, "/logging", SIGN_OF_LIFE_S)
        dump = await asyncio.to_thread(get_json, path, "/config_dump", _FETCH_TIMEOUT_S)
        bad = list(certificates_in_trouble(dump, agent.clock.now()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, MeshError) as exc:
        hint = "see the ztunnel's log"
        return judged(
            code, category, description, error=f"no certificates could be read: {exc}", hint=hint
        )
    hint = "look for certificate.failed in the ztunnel's log, and check the control plane's CA"
    return judged(code, category, description, error="; ".join(bad[:5]), hint=hint)


def _control(agent: Agent) -> Iterator[Check]:
    connection = agent.intents.connection
    yield judged(
        "TUL0801",
        "control",
        f"the control plane answers ({connection.address})",
        error="" if connection.connected else connection.error or "not yet",
        hint="is tulle-control running, and are --control-root and --token right?",
    )
    age_s = agent.intents_age_s()
    stale = "" if age_s is None else f"{age_s:.0f} s old" if age_s > INTENTS_AGE_WARNING_S else ""
    yield judged(
        "TUL0802",
        "control",
        "the control plane's word about this node's pods is fresh",
        error="none received yet" if age_s is None else stale,
        hint="captured pods stay captured; new ones cannot start",
        level=Result.ERROR if age_s is None else Result.WARNING,
    )


def map_pressure(usages: Iterable[tuple[str, int, int]]) -> Iterator[Check]:
    """One check for each (name, used, max). A table that forgets fills up in ordinary use."""
    for name, used, limit in usages:
        spec = MAPS.get(name)
        is_forgetful = spec is not None and spec.type is MapType.LRU_HASH
        least = limit if is_forgetful else limit * MAP_PRESSURE_WARNING
        refuses = "one that is full refuses what needs a new entry; docs/bounds.md has who fills it"
        forgets = "the oldest entries go: theirs take the tunnel or are refused (docs/bounds.md)"
        yield judged(
            "TUL0901",
            "maps",
            f"the kernel table {name} has room",
            error=f"{used} of {limit}" if limit > 0 and least <= used else "",
            hint=forgets if is_forgetful else refuses,
            level=Result.WARNING if is_forgetful or used < limit else Result.ERROR,
        )


def _pods(agent: Agent) -> Check:
    failed = [f"{uid}: {why}" for uid, state, why in agent.pod_states() if state is PodState.FAILED]
    return judged(
        "TUL1001",
        "pods",
        "every enrolled pod could be captured",
        error="; ".join(failed[:5]),
        hint="the agent tries again every 5 s; its log has pod.failed with the reason",
    )


def _kernel(agent: Agent) -> Check:
    """Standing differences are an error, those that were repaired within a day a warning."""
    compared = agent.enroller.compared
    shown = compared.status()
    standing = compared.error or "; ".join(shown["standing"][:5])
    age_s = agent.clock.monotonic_s() - compared.last_at_s
    was_found = compared.last_at is not None and age_s < DIFFERENCES_SHOWN_S
    repaired = f"repaired at {shown['found_at']}: {'; '.join(shown['found'][:5])}"
    return judged(
        "TUL1004",
        "pods",
        "the kernel has what captured pods need",
        error=standing or (repaired if was_found else ""),
        hint="somebody removes pins or programs of ours; the agent's log has kernel.difference",
        level=Result.ERROR if standing else Result.WARNING,
    )


def _runtime(agent: Agent) -> Iterator[Check]:
    if agent.runtime is None:
        return
    shown = agent.runtime.status()
    yield judged(
        "TUL1002",
        "pods",
        "the container runtime answers" + (f" ({shown['name']})" if shown["connected"] else ""),
        error=shown["error"],
        hint="mount its socket into the agent's container, or set --cri-socket; meanwhile only the "
        "CNI plugin tells of pods",
        level=Result.WARNING,
    )
    left_out = sorted(shown["not_registered"].values())
    yield judged(
        "TUL1003",
        "pods",
        "the network namespace of every running pod could be opened",
        error="; ".join(left_out[:5]),
        hint="the agent needs the host's process ids, or /run/netns with HostToContainer",
    )


def _cni(agent: Agent) -> Iterator[Check]:
    code, category, description = "TUL1005", "cni", "pods of this node start when they are captured"
    if agent.cni is None:
        if agent.runtime is not None:  # on a node of Kubernetes somebody has chosen that
            yield judged(
                code,
                category,
                description,
                error="the CNI plugin is off: a pod's first processes run before it is captured",
                hint="cni.enabled=true, --cni",
                level=Result.WARNING,
            )
        return
    keeper = agent.cni.keeper
    yield judged(
        code,
        category,
        f"{description} ({keeper.places.conf})",
        error="" if keeper.is_kept else keeper.problem or "our plugin was taken away by request",
        hint="for Cilium set cni.exclusive=false; for other folders --cni-conf-dir, --cni-bin-dir",
    )
