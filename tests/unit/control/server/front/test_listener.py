"""Addresses to listen on, and how many connections descriptors allow."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from control.kit.errors import ConfigError
from control.server.front import listener
from control.server.front.listener import GrpcSocket, bind, capacity


@pytest.mark.parametrize(
    ("where", "reached"),
    [
        ("127.0.0.1:0", ["127.0.0.1"]),
        ("[::1]:0", ["::1"]),
        ("[::]:0", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", ["127.0.0.1"]),
        ("localhost:0", ["127.0.0.1"]),
    ],
)
def test_every_address_of_both_families(where: str, reached: list[str]) -> None:
    sockets = bind(where)
    try:
        ports = {each.getsockname()[1] for each in sockets}
        assert len(ports) == 1
        for host in reached:
            socket.create_connection((host, ports.copy().pop()), timeout=2).close()
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize("where", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "300.1.1.1:1"])
def test_an_address_that_cannot_be_listened_on_is_a_configuration_error(where: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on|must be ADDRESS:PORT"):
        bind(where)


def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    (first,) = bind("127.0.0.1:0")
    with first, pytest.raises(ConfigError, match="cannot listen on"):
        bind(f"127.0.0.1:{first.getsockname()[1]}")


def test_the_limit_of_descriptors_is_raised_as_far_as_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        found = capacity()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert found * listener.DESCRIPTORS_EACH + listener.DESCRIPTORS_RESERVED <= before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_only_we_reach_the_socket_of_grpc() -> None:
    subject = GrpcSocket()
    folder = os.path.dirname(os.path.realpath(os.path.dirname(subject.path)) + "/x")
    try:
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert len(subject.path) < 100
    finally:
        subject.close()
    assert not os.path.exists(folder)
