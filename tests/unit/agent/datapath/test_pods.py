"""A pod's values, record and pin name."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath import pods
from agent.datapath.errors import PodRefused
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod, ListenerFds, PodCapture
from bpf import layout
from control.model.address import canonical, parse_address

PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
UIDS = st.text(PRINTABLE, min_size=1, max_size=21)


@given(UIDS)
def test_a_pin_name_is_a_file_name(uid: str) -> None:
    name = pods.pin_name(uid)
    assert not set(name) & set("./\0")  # bpffs refuses dots; a slash would leave the folder


@given(UIDS, UIDS)
def test_two_uids_never_share_a_pin(one: str, two: str) -> None:
    assert (pods.pin_name(one) == pods.pin_name(two)) is (one == two)


@pytest.mark.parametrize("uid", ["", "x" * 256, "." * 86])
def test_a_uid_that_is_none_is_refused(uid: str) -> None:
    with pytest.raises(PodRefused):
        pods.pin_name(uid)


def test_the_value_of_a_dual_stack_pod() -> None:
    addresses = (parse_address("fd00::2"), parse_address("10.0.0.2"))
    value = pods.pod_value(CapturedPod("uid", 1, addresses, workload_id=7, direct=True))
    assert bytes(value.ip4) == bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 2])
    assert bytes(value.ip6) == parse_address("fd00::2")
    assert (value.has4, value.has6, value.mode) == (1, 1, layout.PodMode.CAPTURE)
    assert (value.workload, value.direct) == (7, 1)


@pytest.mark.parametrize(
    "addresses",
    [(), ("10.0.0.2", "10.0.0.3"), ("fd00::2", "fd00::3"), ("10.0.0.2", "::ffff:10.0.0.3")],
)
def test_addresses_that_leave_a_doubt_are_refused(addresses: tuple[str, ...]) -> None:
    with pytest.raises(PodRefused):
        pods.pod_value(CapturedPod("uid", 1, tuple(map(parse_address, addresses))))


@given(UIDS, st.integers(1, 2**64 - 1), st.lists(st.ip_addresses(), max_size=2))
def test_the_record_comes_back(uid: str, cookie: int, addresses: list[Any]) -> None:
    pod = CapturedPod(uid, cookie, tuple(canonical(each.packed) for each in addresses))
    data = pods.about_bytes(pod)
    assert len(data) == layout.ABOUT_BYTES
    assert pods.parse_about(data) == pod


def test_a_record_that_was_never_written_is_none() -> None:
    assert pods.parse_about(bytes(layout.ABOUT_BYTES)) is None


def test_the_longest_uid_of_the_widest_signs_fits_the_record_and_a_file_name() -> None:
    uid = "\u4e2d" * 28
    assert len(pods.pin_name(uid)) == 252
    widest = (canonical(b"\xff" * 4), canonical(b"\xff" * 16))
    pod = CapturedPod(uid, 2**64 - 1, widest)
    assert pods.parse_about(pods.about_bytes(pod)) == pod


def test_only_a_tcp_listener_can_be_a_listener() -> None:
    left, right = socket.socketpair()
    with open("/proc/self/ns/net", "rb") as own, left, right, open(os.devnull, "rb") as file:
        for fd in (left.fileno(), file.fileno()):
            with pytest.raises(PodRefused, match="listener"):
                pods.check_listener(fd, own.fileno())
        with pytest.raises(PodRefused, match="listener"):
            pods.check_listener(left.fileno(), file.fileno())


class FakeMap:
    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    def fill(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            self.slots[struct.unpack("=I", key)[0]] = struct.unpack("=Q", value)[0]


@pytest.mark.parametrize("workers", [1, 2, 3, 32])
def test_every_slot_has_a_listener_of_its_role_and_every_worker_its_share(workers: int) -> None:
    fds = pods.by_worker(range(3 * workers))
    assert fds[0] == ListenerFds(outbound=0, plaintext=1, hbone=2)
    listeners = FakeMap()
    pods.set_listeners(cast(Map, listeners), PodCapture("uid", -1, (), fds))
    assert set(listeners.slots) == set(range(layout.LISTENERS_MAX))
    for role in layout.ListenerRole:
        wanted = [getattr(each, role.name.lower()) for each in fds]
        first = role * layout.ROLE_SLOTS
        found = [listeners.slots[first + number] for number in range(layout.ROLE_SLOTS)]
        shares = [found.count(fd) for fd in wanted]
        assert sum(shares) == layout.ROLE_SLOTS
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("workers", [0, layout.ROLE_SLOTS + 1])
def test_workers_without_a_listener_or_without_a_slot_are_refused(workers: int) -> None:
    fds = pods.by_worker(range(3 * workers))
    with pytest.raises(PodRefused, match=f"listeners of {workers} workers"):
        pods.check(PodCapture("uid", -1, (), fds))
