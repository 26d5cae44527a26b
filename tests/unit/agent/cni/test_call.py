"""Calls of the plugin: those of a real runtime, and those of nobody."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cni.call import LEFT_S_MAX, CniCode, CniError, parse_call
from control.model.address import parse_address
from tests.support.processes.cni import RECORDED


def body(environment: dict[str, str], config: Any) -> bytes:
    head = b"".join(f"{name}={value}\0".encode() for name, value in environment.items())
    return head + b"\0" + (config if isinstance(config, bytes) else json.dumps(config).encode())


def recorded(name: str, **changes: str) -> bytes:
    found = json.loads((RECORDED / name).read_text())
    return body({**found["environment"], "TULLE_LEFT_MS": "9000", **changes}, found["stdin"])


def test_an_addition_as_containerd_asks_for_it() -> None:
    call = parse_call(recorded("ADD.json"))
    assert (call.command, call.version, call.left_s) == ("ADD", "1.1.0", 9.0)
    assert (call.pod, call.pod_uid) == ("shop/web-1", "95c8fcf2-e103-42ca-8599-4f2e296b5be3")
    assert call.container_id.startswith("c2a3bde780fa")
    assert call.netns == "/var/run/netns/cni-7b47c577-0edd-6930-016e-9e8db8ab1c95"
    assert call.addresses == (parse_address("10.244.1.7"), parse_address("fd44:0:0:1::7"))


def test_a_deletion_that_comes_late_has_neither_namespace_nor_result() -> None:
    call = parse_call(recorded("DEL.json"))
    assert (call.command, call.netns, call.addresses) == ("DEL", "", ())
    assert call.container_id.startswith("bcc557e487e5")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, []),
        ([], []),
        ({"ips": 7}, []),
        ({"ips": [7, {"address": 7}, {"address": "x/24"}, {}]}, []),
        ({"ips": [{"address": "10.0.0.1/24"}]}, ["10.0.0.1"]),
        ({"ips": [{"version": "4", "address": "10.0.0.1/24", "interface": 0}]}, ["10.0.0.1"]),
        ({"ips": [{"address": "127.0.0.1/8"}, {"address": "::1/128"}]}, []),
        ({"ips": [{"address": "::ffff:10.0.0.1/120"}]}, ["10.0.0.1"]),
        (
            {
                "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
                "ips": [
                    {"address": "10.0.0.254/24", "interface": 0},
                    {"address": "fd00::1/64", "interface": 1},
                    {"address": "10.0.0.1/24", "interface": 1},
                ],
            },
            ["fd00::1", "10.0.0.1"],
        ),
    ],
)
def test_addresses_are_the_pods_own(result: Any, expected: list[str]) -> None:
    call = parse_call(body({"CNI_COMMAND": "ADD"}, {"prevResult": result}))
    assert call.addresses == tuple(map(parse_address, expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ([], frozenset()),
        ([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b"}], frozenset("ab")),
        ([{"containerID": "a"}, {}], None),
        ([{"containerID": 7}], None),
        ("all", None),
    ],
)
def test_attachments_count_only_when_all_are_understood(
    value: Any, expected: frozenset[str] | None
) -> None:
    call = parse_call(body({"CNI_COMMAND": "GC"}, {"cni.dev/valid-attachments": value}))
    assert call.attachments == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [(each, 10.0) for each in ("", "-1", "99999", "x", "9" * 400, "9" * 5000)] + [("150", 0.15)],
)
def test_the_time_that_is_left_is_bounded(left: str, expected: float) -> None:
    assert parse_call(recorded("ADD.json", TULLE_LEFT_MS=left)).left_s == expected


@pytest.mark.parametrize(
    "data", [b"", b"CNI_COMMAND=ADD\0", b"A=\xff\0\0{}", b"A=b\0\0[]", b"A=b\0\0" + b"[" * 99_999]
)
def test_a_call_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(CniError):
        parse_call(data)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda data: b"A=b\0\0" + data))
def test_any_bytes_are_a_call_or_refused(data: bytes) -> None:
    with contextlib.suppress(CniError):
        assert parse_call(data).left_s <= LEFT_S_MAX


def test_an_error_is_as_the_specification_has_it() -> None:
    error = CniError(CniCode.TRY_LATER, "not yet", "no_intent")
    assert error.as_json("0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "tulle: not yet",
        "details": "no_intent",
    }
