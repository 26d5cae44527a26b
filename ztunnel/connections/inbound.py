"""Connections that arrive for a pod in plaintext, from clients without an identity.

`authorize` decides, from the address that the client dialled and this node's own knowledge alone;
this acts. No byte of a client reaches the app before the answer is yes.
"""

from __future__ import annotations

import logging
import socket
from functools import partial

from control.model.address import Endpoint, format_address
from control.model.policy import Connection, Deny
from control.model.workload import Workload
from ztunnel.connections.engine import Engine, tell
from ztunnel.connections.pod import Pod
from ztunnel.mesh.authorize import Admit, Refusal, admit_plaintext, recheck
from ztunnel.mesh.roles import Accepted
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.tenants.account import UNCOUNTED
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.dial import DialError, Dialling
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.passthrough import SocketRelay
from ztunnel.transport.sockets import reset

log = logging.getLogger("ztunnel.inbound")


def accept_plaintext(
    engine: Engine, pod: Pod, sock: socket.socket, client: Endpoint, accepted: Accepted
) -> None:
    """Take a connection from outside the mesh; its client dialled `accepted`. It waits for the
    control plane's word about a pod that has just started."""
    begin = partial(_begin, engine, pod, sock, client, accepted)
    local = pod.workload(engine.state)
    if local is not None or not engine.callers.wait(pod, begin, partial(begin, None)):
        begin(local)


def _begin(
    engine: Engine,
    pod: Pod,
    sock: socket.socket,
    client: Endpoint,
    accepted: Accepted,
    local: Workload | None,
) -> None:
    tenant = engine.tenants.source(client.address)
    parties = Parties(Reporter.DESTINATION, client, accepted, destination=local, tenant=tenant)
    verdict: Admit | Refusal
    if local is None:
        verdict = Refusal(503, Reason.UNKNOWN_LOCAL_WORKLOAD, "the pod is not known yet")
    elif not engine.tenants.connections.may(tenant):
        verdict = Refusal(503, Reason.CONNECTIONS_MAX, "the address has too many connections")
    elif accepted.port in pod.own_ports:
        verdict = Refusal(503, Reason.RECURSION, "the port is the tunnel's own")
    else:
        verdict = admit_plaintext(engine.state, local, accepted, client.address)
        parties.source = engine.state.workload_at(local.network, client.address)
    connection = InboundPlaintext(engine, pod, sock, parties)
    engine.enter(pod.inbound, connection, tenant)
    if isinstance(verdict, Refusal):
        connection.refuse(verdict)
    else:
        engine.reactor.serve(connection, connection.admit, verdict)


class InboundPlaintext:
    __slots__ = ("_dial", "_engine", "_permitted", "_pod", "_relay", "_sock", "outcome")

    def __init__(self, engine: Engine, pod: Pod, sock: socket.socket, parties: Parties) -> None:
        self._engine = engine
        self._pod = pod
        self._sock = sock
        self._dial: Dialling | None = None
        self._relay: SocketRelay | None = None
        self._permitted: Connection | None = None
        self.outcome = engine.outcome(parties)

    def refuse(self, refusal: Refusal) -> None:
        self.outcome.parties.service = refusal.service
        self._fail(refusal.reason, refusal.detail)

    def admit(self, admitted: Admit) -> None:
        parties = self.outcome.parties
        parties.service = admitted.service
        parties.policy = admitted.permit.policy
        self._permitted = admitted.permit.connection
        tell_would_deny(self._engine, admitted, parties.tenant)
        self._dial = self._engine.dialer.dial_app(
            self._pod.netns_fd,
            admitted.permit,
            self._dialled,
            parties.source_address,
            payer=parties.tenant,
        )

    def _dialled(self, result: socket.socket | DialError) -> None:
        self._dial = None
        if isinstance(result, DialError):
            self._fail(Reason.CONNECT_FAILED, f"the app: {result.value}")
            return
        engine = self._engine
        payer = self.outcome.parties.tenant
        account = UNCOUNTED if payer is None else engine.tenants.account(payer)
        if payer is not None:
            payer.trusted = True
        relay = SocketRelay(engine.reactor, self._sock, result, self._relay_done, account)
        self._relay = relay
        self.outcome.opened(self._engine.counters, relay.moved_bytes)
        relay.start()

    def _relay_done(self, end: RelayEnd) -> None:
        self._leave(Flag.DENY if end is RelayEnd.POLICY else Flag.NONE, end.value)

    def _fail(self, reason: Reason, detail: str) -> None:
        if self.outcome.over:
            return
        self._engine.refuse(reason, self.outcome.parties.tenant)
        reset(self._engine.reactor, self._sock)
        self._leave(reason.flag, detail)

    def _leave(self, flag: Flag, error: str) -> None:
        self._relay = None
        self.outcome.closed(self._engine.counters, flag, error)
        self._engine.leave(self._pod.inbound, self)

    def abort(self, reason: RelayEnd) -> None:
        if self._relay is not None:
            self._relay.abort(reason)
            return
        if self._dial is not None:
            self._dial.abandon()
            self._dial = None
        self._fail(Reason.ABORTED, reason.value)

    def on_bug(self) -> None:
        self.abort(RelayEnd.INTERNAL_ERROR)

    def recheck(self, workload: Workload | None) -> None:
        if still_permitted(self._engine, workload, self._permitted):
            return
        self._engine.refuse(Reason.POLICY_CHANGED, None)
        self.abort(RelayEnd.POLICY)


def tell_would_deny(engine: Engine, admitted: Admit, tenant: Tenancy | None) -> None:
    """Count and log a connection that a dry-run policy would have refused; it is let in."""
    if admitted.would_deny is None:
        return
    engine.counters.count("would_deny")
    connection = admitted.permit.connection
    tell(
        engine,
        log,
        "policy.would_deny",
        tenant or UNCOUNTED.tenant,
        policy=admitted.would_deny.policy or "no allow policies match",
        source=connection.source or format_address(connection.source_ip),
        destination=admitted.target,
    )


def still_permitted(
    engine: Engine, workload: Workload | None, permitted: Connection | None
) -> bool:
    """False if the policies of now refuse the connection.

    A workload that the control plane no longer knows keeps its connections: its pod is being
    deleted, and that ends them.
    """
    if permitted is None or workload is None:
        return True
    return not isinstance(recheck(engine.state, workload, permitted), Deny)
