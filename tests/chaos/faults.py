"""Faults of a mesh, each a context: it strikes on entering, and is over when the context ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.lab import changes, netns, plan, process
from agent.lab.daemons import Daemons
from tests.support.lab.churn import churning
from tests.support.lab.mesh_bed import Bed

MTU, SMALL_MTU = 1500, 1280
LOSS_PERCENT = 3
DISK_BYTES = 64 * 1024 * 1024
DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: not-other, namespace: mesh}}
spec:
  action: DENY
  {selector}
  rules: [{{from: [{{source: {{principals: ["cluster.local/ns/mesh/sa/other"]}}}}]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: mesh}}
spec: {{mtls: {{mode: STRICT}}}}
"""
# `other` may not reach `server`, nor a stranger anybody, in either form and at any moment between.
NARROW = DENY.format(selector="selector: {matchLabels: {app: server}}")
WIDE = DENY.format(selector="")


@dataclass(frozen=True)
class Fault:
    """A disturbance. Two with one `subject` do not strike together; `alone`: with no other."""

    name: str
    subject: str
    strike: Callable[[], AbstractContextManager[None]]
    alone: bool = False


def table(bed: Bed, disk: Path) -> list[Fault]:
    """All faults of this mesh. `disk` is the small file system that its run folder is on."""
    found = [
        Fault("control killed", "control", partial(killed, bed, None, "control")),
        Fault("control frozen", "control", partial(frozen, bed, "control")),
        Fault("disk full", "disk", partial(full, disk), alone=True),
        Fault("policy rewritten", "policy", partial(rewritten, bed)),
        Fault("pod comes and goes", "pod", partial(comes_and_goes, bed), alone=True),
    ]
    for node, where in ((bed.here, "here"), (bed.there, "there")):
        own, link = f"node {where}", f"link {where}"
        for what in ("agent", "ztunnel"):
            found += [
                Fault(f"{what} {where} killed", own, partial(killed, bed, node, what)),
                Fault(f"{what} {where} frozen", own, partial(frozen, bed, f"{what}-{node}")),
            ]
        found += [
            Fault(f"both {where} killed", own, partial(killed, bed, node, "agent", "ztunnel")),
            Fault(f"worker {where} killed", own, partial(worker, bed, node, True)),
            Fault(f"worker {where} frozen", own, partial(worker, bed, node, False)),
            Fault(f"{link} cut", link, partial(filtered, bed, node, "drop")),
            Fault(
                f"{link} lossy",
                link,
                partial(filtered, bed, node, f"numgen random mod 100 < {LOSS_PERCENT} drop"),
            ),
            Fault(f"{link} narrow", link, partial(narrow, bed, node)),
        ]
    return found


@contextmanager
def killed(bed: Bed, node: str | None, *processes: str) -> Iterator[None]:
    for what in processes:
        changes.kill(bed.lab, what, node)
    try:
        yield
    finally:
        for what in processes:
            start(bed, what, node)


def start(bed: Bed, what: str, node: str | None) -> None:
    """Start a process and wait for nothing: what it needs may be away because of another fault."""
    lab = bed.lab
    with lab.store.exclusive():
        state = lab.store.load()
        daemons = Daemons(lab.run_dir, state, lab.progress)
        if node is None:
            daemons.start_control()
        elif what == "agent":
            daemons.start_agent(state.node(node))
        else:
            daemons.start_ztunnel(state.node(node))
        lab.store.save(state)


@contextmanager
def frozen(bed: Bed, name: str) -> Iterator[None]:
    with stopped(bed.lab.store.load().processes[name]):
        yield


@contextmanager
def worker(bed: Bed, node: str, kill: bool) -> Iterator[None]:
    """A killed worker comes back by itself."""
    pids = bed.workers(node)
    found = process.Process(pids[0], process.start_of(pids[0]) or 0) if pids else None
    if found is None:
        yield
    elif kill:
        process.send(found, signal.SIGKILL)
        yield
    else:
        with stopped(found):
            yield


@contextmanager
def stopped(victim: process.Process) -> Iterator[None]:
    process.send(victim, signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(victim, signal.SIGCONT)


@contextmanager
def filtered(bed: Bed, node: str, verdict: str) -> Iterator[None]:
    """A packet filter on the router, for what comes from this node and goes to it."""
    rules = "".join(f"    {way} to-{node} {verdict}\n" for way in ("iifname", "oifname"))
    head = "type filter hook forward priority 0;"
    _nft(bed, f"table inet {node} {{\n  chain chaos {{\n    {head}\n{rules}  }}\n}}\n")
    try:
        yield
    finally:
        _nft(bed, f"delete table inet {node}\n")


def _nft(bed: Bed, rules: str) -> None:
    router = plan.router_netns(bed.lab.store.load().lab)
    with netns.inside(router):
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


@contextmanager
def narrow(bed: Bed, node: str) -> Iterator[None]:
    """A small MTU on both ends of the node's link, under open connections."""
    state = bed.lab.store.load()
    ends = ((plan.router_netns(state.lab), f"to-{node}"), (state.node(node).netns, "eth0"))
    _set_mtu(ends, SMALL_MTU)
    try:
        yield
    finally:
        _set_mtu(ends, MTU)


def _set_mtu(ends: tuple[tuple[str, str], ...], mtu: int) -> None:
    for name, link in ends:
        with netns.netlink(name) as here:
            here.link("set", index=here.link_lookup(ifname=link)[0], mtu=mtu)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own, in memory, for a folder."""
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is left for logs and state."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65536)) == 65536:
                    pass
            except OSError:
                pass
        yield
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def rewritten(bed: Bed) -> Iterator[None]:
    """One policy for all of a namespace becomes one for its own pod, and back."""
    bed.write_policy(WIDE)
    try:
        yield
    finally:
        bed.write_policy(NARROW)


@contextmanager
def comes_and_goes(bed: Bed) -> Iterator[None]:
    source = str(bed.lab.run_dir.parent / "lab" / "churn.yaml")
    changes.apply(bed.lab, churning(bed.here, "client"), source)
    try:
        yield
    finally:
        changes.delete(bed.lab, "pod", "mesh", "churn")
