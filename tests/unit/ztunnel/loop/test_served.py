"""Each handler has the methods of its role, with the parameters that the reactor gives."""

from __future__ import annotations

import inspect

import pytest

from ztunnel.connections.accept_queues import AcceptQueue
from ztunnel.connections.listeners import Listener
from ztunnel.loop import served
from ztunnel.transport.dial import Dial
from ztunnel.transport.keepalive import Keepalive
from ztunnel.transport.outgoing import Outgoing
from ztunnel.transport.passthrough import SocketRelay
from ztunnel.transport.tunnel import Tunnel


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        (Tunnel, served.Handler),
        (Tunnel, served.Resumable),
        (Listener, served.Handler),
        (Dial, served.Handler),
        (AcceptQueue, served.Resumable),
        (Outgoing, served.Flushable),
        (Keepalive, served.Served),
        (SocketRelay, served.Served),
    ],
)
def test_each_has_what_it_is_called_for(kind: type, role: type) -> None:
    wanted = [name for name in dir(role) if not name.startswith("_")]
    assert wanted
    for name in wanted:
        assert callable(getattr(kind, name))
        if inspect.isfunction(getattr(kind, name)):  # not of a compiled module
            there = inspect.signature(getattr(kind, name)).parameters
            assert len(there) == len(inspect.signature(getattr(role, name)).parameters)
