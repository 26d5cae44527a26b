"""The supervisor: holds the state of a node and keeps every part informed, from start to drain.

It joins zds → pods → workers, xds → state → workers, certs → workers; the parts do the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from control.kit.clock import Clock
from control.kit.log import current_spec, event, set_level
from control.kit.memory import SETTLE_AT_S, release, settle
from control.kit.page_refusals import refusals
from control.kit.version import version
from control.model.identity import SpiffeId
from control.wire.direct import AgentHello, FlowLine, Unknown, ZtunnelLine
from ztunnel.compiled import COMPILED
from ztunnel.config import ZtunnelConfig
from ztunnel.identity.certs import Certificates
from ztunnel.identity.csr import Issued
from ztunnel.identity.signer import CaClient, Signer
from ztunnel.mesh.entries import Entry
from ztunnel.mesh.state import State
from ztunnel.supervisor import admin, dump
from ztunnel.supervisor.agent_link import DirectLink
from ztunnel.supervisor.copies import Copy
from ztunnel.supervisor.direct import DirectHub
from ztunnel.supervisor.leaving import LAST_S, LOOK_S, shares_network, successor
from ztunnel.supervisor.metrics import Sample, Tally
from ztunnel.supervisor.missing import MissingWatch, missing_policies
from ztunnel.supervisor.passing import Passing
from ztunnel.supervisor.plaintext import PlaintextRefusals
from ztunnel.supervisor.pods import HeldPod, HeldPods
from ztunnel.supervisor.stale import touched
from ztunnel.supervisor.workers import Workers
from ztunnel.supervisor.xds import XdsClient
from ztunnel.supervisor.zds import ZdsClient

log = logging.getLogger("supervisor")

POLL_S = 5.0  # between readings of the workers' counters: a crashed worker loses no more
SENT_DEADLINE_S = 0.5  # a page does not wait longer for the kernel's word about a change
RELEASE_EVERY_S = 15.0  # gives back what an update, a certificate or a page needed for a moment


class Supervisor:
    def __init__(
        self,
        config: ZtunnelConfig,
        clock: Clock,
        signer: Signer | None = None,
        early: Sequence[Copy] = (),
    ) -> None:
        """`early`: workers that have been started already."""
        self._config = config
        self._clock = clock
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._tally = Tally()
        self.state = State(cluster_id=config.cluster_id, node=config.node, strict=True)
        self.workers = Workers(config.workers, config.for_workers(), self, self, clock, early=early)
        self.certificates_kept = Certificates(
            signer or CaClient(config),
            clock,
            self.workers,
            ttl_s=config.secret_ttl_s,
            on_recovered=lambda: self.xds.hurry(),
        )
        self.served = HeldPods(
            self.workers,
            self.certificates_kept,
            workers=config.workers,
            trust_domain=config.trust_domain,
            fixed_ports=config.fixed_ports,
        )
        self.direct = DirectHub(self.workers)
        if config.direct is not None:
            self.direct.link = DirectLink(config.direct, clock, self._heard_agent)
        self.plaintext = PlaintextRefusals(self.state, self.direct.tell)
        self._missing = MissingWatch()
        self._passing = Passing()
        self._synced = asyncio.Event()
        self._workers_up = asyncio.Event()
        self.xds = XdsClient(
            config,
            self.state,
            self._publish,
            self.certificates_kept.reachable,
            self.workers.refuse_addresses,
        )
        self.zds = ZdsClient(config.zds, self.served, self._may_return)

    def quit(self) -> None:
        """Drain. Again: a container runtime that was restarted asks for the end once more."""
        self._stop.set()

    def interrupt(self) -> None:
        """Somebody at a terminal: the first call drains, one during a drain ends at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def run(self) -> None:
        """Serve until `quit()`, then drain."""
        config = self._config
        doors = admin.Doors(
            config.admin_socket,
            config.admin,
            config.metrics,
            config.readiness,
            config.admin_on_tcp,
        )
        async with admin.serve(self, doors) as pages, asyncio.TaskGroup() as tasks:
            agent = [
                tasks.create_task(self._run_zds(), name="zds"),
                tasks.create_task(self._run_direct(), name="direct"),
            ]
            others = [
                tasks.create_task(self.workers.run(), name="workers"),
                tasks.create_task(self.xds.run(), name="xds"),
                tasks.create_task(self.xds.demand.run(), name="demand"),
                tasks.create_task(self.certificates_kept.run(), name="certificates"),
                tasks.create_task(self._poll(), name="poll"),
                tasks.create_task(self._release(), name="release"),
            ]
            for after_s in SETTLE_AT_S:
                asyncio.get_running_loop().call_later(after_s, settle)
            started = {"node": config.node, "version": version(), "compiled": COMPILED}
            event(log, logging.INFO, "ztunnel.started", **started)
            await self._stop.wait()
            ending = tasks.create_task(self._end(agent, pages), name="drain")
            hurry = tasks.create_task(self._stop_now.wait(), name="hurry")
            await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
            for each in (ending, hurry):
                each.cancel()
            await self.workers.kill()
            for each in (*agent, *others):
                each.cancel()
        event(log, logging.INFO, "ztunnel.ended")

    async def _run_zds(self) -> None:
        """Join once we can serve: the agent gives every new connection to the newest ztunnel, also
        to one that waits for its control plane."""
        await self._synced.wait()
        await self._workers_up.wait()
        await self.zds.run()

    async def _run_direct(self) -> None:
        """Run the link once the workers know every pod: open flows are reported only once."""
        await self._synced.wait()
        await self.served.snapshot.wait()
        if self.direct.link is not None:
            await self.direct.link.run()

    async def _publish(self, entries: list[Entry]) -> None:
        with self._passing.under_way():
            if self.direct.link is None:
                self.workers.publish(entries)
            else:
                served = {(pod.namespace, pod.name) for pod in self.served.all()}
                await self.direct.publish(entries, served)
                self.plaintext.follow(self.served.all(), touched(entries, served))
        if self.state.synced:
            self._synced.set()

    def _heard_agent(self, line: AgentHello | FlowLine) -> None:
        self.direct.heard(line)
        if isinstance(line, AgentHello):
            self.plaintext.again()
            self.plaintext.update(self.served.all())

    async def _end(self, agent: Iterable[asyncio.Task[None]], pages: admin.OpenPages) -> None:
        """Serve on as long as something is open, then accept nothing more and end."""
        last_s = await self._serve_on(pages)
        for each in agent:
            each.cancel()  # it gives us no more pods, and the kernel's connections are not ours
        self.served.close_listeners()
        event(log, logging.INFO, "drain.closing", deadline_s=last_s)
        await self.workers.drain(last_s)

    async def _serve_on(self, pages: admin.OpenPages) -> float:
        """Time that is left for what is still open then."""
        config, loop = self._config, asyncio.get_running_loop()
        begun_s, limit_s, is_followed = loop.time(), config.drain_alone_s, False
        event(log, logging.INFO, "drain.started", alone_s=limit_s, followed_s=config.drain_s)
        if not config.fixed_ports:
            self.zds.leave()
        while True:
            newer = successor(config.admin_socket)
            if newer is not None and not is_followed:
                limit_s, is_followed = config.drain_s, True
                event(log, logging.INFO, "drain.followed", deadline_s=limit_s)
                if shares_network(newer):
                    await pages.give_up_ports()
            left_s = begun_s + limit_s - loop.time()
            # Where packet filter rules redirect, the kernel shares connections among all listeners.
            if left_s <= LAST_S or config.fixed_ports:
                return max(left_s, 0.0)
            if await self.workers.leave(min(LOOK_S, left_s - LAST_S)):
                return LAST_S

    def _may_return(self) -> bool:
        """False if the agent must not take us for its newest ztunnel when it comes back."""
        return not self._stop.is_set() or successor(self._config.admin_socket) is None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._missing.look(self.state, self.served.all())
            self.plaintext.update(self.served.all())  # an update may be whole by now
            await self.workers.query("metrics")  # the tally takes the pieces as they come
            await self._look_at_names()

    async def _look_at_names(self) -> None:
        """Find out which addresses are still in use, where they come on demand."""
        demand = self.xds.demand
        if len(demand.book):
            answers = await self.workers.query("names")
            used = [name for each in answers.values() for name in each.get("names", ())]
            demand.look({pod.uid for pod in self.served.all()}, used)

    async def _release(self) -> None:
        while True:
            await asyncio.sleep(RELEASE_EVERY_S)
            release()

    # State for a new worker (workers.WorkerSource)

    def entries(self) -> Iterable[Entry]:
        return self.state.snapshot()

    def pods(self) -> Iterable[HeldPod]:
        return self.served.all()

    def certificates(self) -> Iterable[Issued]:
        return self.certificates_kept.in_force()

    def generation(self) -> int | None:
        return None if self.direct.link is None else self.direct.link.generation

    # News from workers (workers.WorkerListener)

    def pod_ready(self, worker: int, uid: str) -> None:
        self.served.worker_ready(worker, uid)
        pod = self.served.get(uid)
        if pod is not None:
            self.plaintext.ready(pod)

    def worker_ready(self, worker: int) -> None:
        if self.workers.all_ready:
            self._workers_up.set()
        self.direct.replay()

    def direct_line(self, worker: int, line: ZtunnelLine | Unknown) -> None:
        self.direct.said(worker, line)

    def worker_lost(self, worker: int) -> None:
        self.served.worker_lost(worker)
        self.direct.worker_lost(worker)
        self._tally.worker_lost(worker)

    def metrics_changed(self, worker: int, piece: dict[str, Any]) -> None:
        self._tally.heard(worker, piece)

    def certificate_needed(self, identity: SpiffeId, *, waiting: bool) -> None:
        self.certificates_kept.need(identity, waiting=waiting)

    def addresses_needed(self, pod: str, names: list[str], *, spare: bool) -> None:
        if self.served.get(pod) is not None:
            self.xds.demand.want(pod, names, spare=spare)

    # Contents of the pages (admin.Subject)

    def pending(self) -> list[str]:
        checks = {
            "state manager": self.state.synced,
            "workload proxy manager": self.served.snapshot.is_set(),
            "proxy": self.workers.all_ready,
        }
        return [name for name, done in checks.items() if not done]

    def set_log_level(self, spec: str) -> None:
        set_level(spec)
        self.workers.set_log_level(current_spec())

    def rotate(self, identity: SpiffeId | None) -> list[SpiffeId]:
        return self.certificates_kept.rotate(identity)

    async def config_dump(self) -> dict[str, Any]:
        is_sent = await self._passing.over(SENT_DEADLINE_S)
        mesh = {
            "workloads": dump.workloads(self.state),
            "services": dump.services(self.state),
            "policies": dump.policies(self.state),
        }
        # Asked after that: a worker that answers has taken all of it.
        connections = await self.workers.query("connections")
        return {
            **mesh,
            "stagedServices": {},
            "certificates": [dump.certificate(*each) for each in self.certificates_kept.all()],
            "workloadState": {
                pod.uid: self._workload_state(pod, connections) for pod in self.served.all()
            },
            "version": {
                "version": version(),
                "component": "tulle-ztunnel",
                "compiled": COMPILED,
            },
            "config": self._config.as_json(),
            "staticConfig": {},
            "node": self._config.node,
            "workers": [
                {**each, "current": is_sent and each["worker"] in connections}
                for each in self.workers.status()
            ],
            "control": {
                "connected": self.xds.status.connected,
                "synced": self.state.synced,
                "settled": self.state.settled,
                "error": self.xds.status.error,
            },
            "agent": {
                "connected": self.zds.status.connected,
                "snapshot": self.zds.status.snapshot,
                "error": self.zds.status.error,
            },
            "direct": dump.direct(self.direct, connections),
            "tenants": dump.tenants(connections),
            "refused": [row for each in connections.values() for row in each.get("refused", ())],
        }

    def _workload_state(self, pod: HeldPod, answers: dict[int, dict[str, Any]]) -> dict[str, Any]:
        known = self.state.local_workload(pod.namespace, pod.name, pod.service_account)
        connections: dict[str, list[Any]] = {"inbound": [], "outbound": []}
        for answer in answers.values():
            found = answer.get("connections", {}).get(pod.uid, {})
            for direction, all_of_them in connections.items():
                all_of_them.extend(found.get(direction, ()))
        return {
            "state": "Pending" if known is None else "Up",
            "info": {
                "name": pod.name,
                "namespace": pod.namespace,
                "trustDomain": pod.identity.trust_domain,
                "serviceAccount": pod.service_account,
            },
            "missingPolicies": missing_policies(self.state, pod),
            "connections": connections,
        }

    async def pools(self) -> dict[str, Any]:
        return {str(who): answer for who, answer in (await self.workers.query("pools")).items()}

    async def samples(self) -> list[Sample]:
        await self.workers.query("metrics")
        return [*self._own_samples(), *self._tally.samples()]

    def _own_samples(self) -> Iterable[Sample]:
        yield Sample("istio_build", 1, {"component": "ztunnel", "tag": version()})
        xds = self.xds.status
        for reason, number in xds.terminations.items():
            yield Sample("istio_xds_connection_terminations_total", number, {"reason": reason})
        for url, number in xds.messages.items():
            yield Sample("istio_xds_message_total", number, {"url": url})
        for url, number in xds.message_bytes.items():
            yield Sample("istio_xds_message_bytes_total", number, {"url": url})
        pods = list(self.served.all())
        pending = sum(
            self.state.local_workload(pod.namespace, pod.name, pod.service_account) is None
            for pod in pods
        )
        yield Sample("workload_manager_active_proxy_count", len(pods) - pending)
        yield Sample("workload_manager_pending_proxy_count", pending)
        yield Sample("workload_manager_proxies_started_total", self.served.started)
        yield Sample("workload_manager_proxies_stopped_total", self.served.stopped)
        yield Sample("tulle_ztunnel_worker_restarts_total", self.workers.restarts)
        if self.xds.demand.active:
            for stage, number in self.xds.demand.book.counts().items():
                yield Sample("tulle_ztunnel_addresses_asked", number, {"stage": stage})
        yield from self._direct_samples()
        ready = sum(bool(each["ready"]) for each in self.workers.status())
        yield Sample("tulle_ztunnel_workers_ready", ready)
        for (door, reason), number in sorted(refusals.counts.items()):
            labels = {"door": door, "reason": reason}
            yield Sample("tulle_ztunnel_http_refused_total", number, labels)

    def _direct_samples(self) -> Iterable[Sample]:
        link = self.direct.link
        if link is None:
            return
        yield Sample("tulle_ztunnel_direct_connected", link.status.connected)
        yield Sample("tulle_ztunnel_direct_generations_total", link.generations)
        yield Sample("tulle_ztunnel_direct_unknown_lines_total", link.status.unknown_kinds)
        for kind, number in self.direct.lines.items():
            yield Sample("tulle_ztunnel_direct_lines_total", number, {"kind": kind})
