"""The own network namespace, seen through a socket."""

from __future__ import annotations

import os
import socket

from agent.datapath import netns


def test_sockets_of_one_namespace_have_one_cookie() -> None:
    with socket.socket() as one, socket.socket(socket.AF_UNIX) as other:
        cookie = netns.cookie_of_socket(one.fileno())
        assert cookie > 0
        assert netns.cookie_of_socket(other.fileno()) == cookie


def test_a_borrowed_descriptor_stays_open() -> None:
    with socket.socket() as own:
        with netns.borrowed(own.fileno()) as lent:
            assert lent.fileno() == own.fileno()
        os.fstat(own.fileno())
