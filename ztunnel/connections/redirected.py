"""Listening and dialling on a node whose agent redirects by packet filter rules, as Istio's does.

Such rules send every connection of the pod to the fixed ports, ours included, unless its packets
carry the mark. Conntrack knows the connection's destination, on inbound plaintext too. The app
sees its client because we dial from the client's address.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from control.kit.log import event
from control.model.address import Address, Endpoint
from ztunnel.connections.engine import Engine
from ztunnel.connections.inbound import accept_plaintext
from ztunnel.connections.listeners import Listener, Pauses, listen
from ztunnel.connections.pod import Pod
from ztunnel.connections.sockaddr import endpoint_of
from ztunnel.mesh.roles import Accepted
from ztunnel.transport.dial import DialDone, Dialer, DialError
from ztunnel.transport.sockets import reset

log = logging.getLogger("ztunnel.redirected")

# Packets with this mark pass the rules, which send the app's answers back by it.
PACKET_MARK: Final = 0x539
# From linux/in.h and linux/in6.h; the socket module has no names for them.
_IP_FREEBIND: Final = 15
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IPV6_TRANSPARENT: Final = 75
_IPV6_FREEBIND: Final = 78


class MarkedDialer(Dialer):
    """Dials with the mark, and apps from the address of their client."""

    def _prepare(self, sock: socket.socket, done: DialDone) -> bool:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PACKET_MARK)
        except OSError as exc:
            # Without it the connection would come back to our own listener, again and again.
            sock.close()
            event(log, logging.ERROR, "dial.not_marked", error=exc)
            done(DialError.OTHER)
            return False
        return super()._prepare(sock, done)

    def _show(self, sock: socket.socket, client: Endpoint, app: Address) -> None:
        if client.address == app:
            return  # the client is the pod itself
        family = socket.AF_INET6 if len(client.address) == 16 else socket.AF_INET
        if family != sock.family:
            self.source_not_shown += 1
            return
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
                sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((socket.inet_ntop(family, client.address), 0))
        except OSError:
            self.source_not_shown += 1


def listen_redirected(
    engine: Engine,
    pauses: Pauses,
    pod: Pod,
    outbound: socket.socket,
    plaintext: socket.socket,
    hbone: socket.socket,
) -> None:
    """Register the pod's listeners. Plaintext that arrives was for another port than ours."""

    def take(sock: socket.socket, peer: Endpoint) -> None:
        if pod.gone:
            reset(engine.reactor, sock)
            return
        # Without an entry in conntrack it was for our own port, and is refused as such.
        original = engine.original_destination(sock)
        meant = endpoint_of(sock.getsockname()) if original is None else original[0]
        accept_plaintext(engine, pod, sock, peer, Accepted(meant))

    listen(engine, pauses, pod, outbound, None, hbone)
    pod.own_ports.add(endpoint_of(plaintext.getsockname()).port)
    pod.listeners.append(Listener(engine, pauses, plaintext, "plaintext", take))
