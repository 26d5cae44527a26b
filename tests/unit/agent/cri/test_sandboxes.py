"""Answers of a runtime, also those that no sane runtime gives."""

from __future__ import annotations

import json

import pytest

from agent.cri import runtime_pb2 as pb
from agent.cri.sandboxes import SANDBOXES_MAX, current, living, parse_list, parse_status
from control.model.address import parse_address
from tests.support.kube.cri import FakeSandbox
from tests.unit.agent.cri.test_recordings import recorded


def place(sandbox: FakeSandbox, info: str | None = None):  # type: ignore[no-untyped-def]
    response = pb.PodSandboxStatusResponse(status=sandbox.status())
    response.info["info"] = json.dumps(sandbox.info()) if info is None else info
    return parse_status(response)


def test_the_recorded_sandbox_has_a_place() -> None:
    info = json.dumps(recorded("PodSandboxStatus-info.json")["info"])
    web = FakeSandbox(uid="u", name="web", id="s", ips=("10.244.1.7", "fd44:0:0:1::7"))
    found = place(web, info)
    assert found.paths == (
        "/var/run/netns/cni-7b47c577-0edd-6930-016e-9e8db8ab1c95",
        "/proc/5407/ns/net",
    )
    assert found.addresses == (parse_address("10.244.1.7"), parse_address("fd44:0:0:1::7"))
    assert not found.is_host_network


def test_a_pod_of_the_hosts_network_is_known_as_one() -> None:
    found = place(FakeSandbox(uid="u", name="n", id="s", host_network=True, pid=7))
    assert found.is_host_network
    assert found.addresses == ()


@pytest.mark.parametrize(
    "info",
    [
        "",
        "null",
        "[1]",
        "{",
        "[" * 100_000,
        '{"pid": "7", "runtimeSpec": 3}',
        '{"pid": true, "runtimeSpec": {"linux": {"namespaces": {}}}}',
        '{"pid": -1, "runtimeSpec": {"linux": {"namespaces": [3, {"type": "network"}]}}}',
        '{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "relative"}]}}}',
        '{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "/a\\u0000"}]}}}',
    ],
)
def test_an_account_that_cannot_be_read_names_no_path(info: str) -> None:
    assert place(FakeSandbox(uid="u", name="n", id="s"), info).paths == ()


def test_addresses_that_are_none_do_not_count() -> None:
    found = place(FakeSandbox(uid="u", name="n", id="s", ips=("", "10.0.0.1", "x", "10.0.0.1/24")))
    assert found.addresses == (parse_address("10.0.0.1"),)


def test_the_ready_sandbox_counts_and_of_two_the_younger() -> None:
    response = pb.ListPodSandboxResponse()
    for sandbox_id, state, created in (
        ("old", pb.SANDBOX_READY, 1),
        ("new", pb.SANDBOX_READY, 3),
        ("middle", pb.SANDBOX_READY, 2),
        ("dead", pb.SANDBOX_NOTREADY, 4),
    ):
        item = response.items.add(id=sandbox_id, state=state, created_at=created)
        item.metadata.uid = "u"
    response.items.add(id="nobody's")
    listed = parse_list(response)
    assert len(listed) == 4
    assert current(listed)["u"].id == "new"
    assert current(each for each in listed if each.id == "dead") == {}


def test_a_list_is_bounded() -> None:
    response = pb.ListPodSandboxResponse()
    for number in range(SANDBOXES_MAX + 1):
        response.items.add(id=str(number)).metadata.uid = str(number)
    assert len(parse_list(response)) == SANDBOXES_MAX


def test_a_container_that_may_live_counts_as_living() -> None:
    response = pb.ListContainersResponse()
    for state in range(4):
        response.containers.add(pod_sandbox_id=str(state)).state = state  # type: ignore[assignment]
    alive, any_at_all = living(response)
    assert alive == {"0", "1", "3"}
    assert any_at_all == {"0", "1", "2", "3"}
