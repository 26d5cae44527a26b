"""Lines of direct.sock: what is understood, and what is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath.flows import FlowReport
from agent.direct import wire
from control.kit.errors import WireError
from control.model.address import Endpoint, parse_address, parse_endpoint

HERE, THERE = parse_endpoint("10.0.0.1:40000"), parse_endpoint("[fd00::2]:80")
VIP = parse_endpoint("10.96.0.1:80")


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


SLOT = {"weight": 2, "destination": "u2", "address": "fd00::2", "port": 8080}
SERVICE = {"kind": "service", "source": "u1", "vip": "::ffff:10.96.0.1", "port": 80}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line(kind="hello", version=1, pid=7, generation=3), wire.Hello(1, 3)),
        (line(kind="generation", generation=4, news="unheard of"), wire.Generation(4)),
        (
            line(kind="verdict", generation=4, source="u1", destination="u2", port=80),
            wire.Verdict(4, "u1", "u2", 80),
        ),
        (line(kind="cut", id=2**64 - 1), wire.Cut(2**64 - 1)),
        (line(kind="replay"), wire.Replay()),
        (line(kind="weather", is_fine=True), wire.Unknown("weather")),
        (
            line(**SERVICE, total=3, slots=[SLOT]),
            wire.Service(
                "u1",
                parse_address("10.96.0.1"),
                80,
                3,
                (wire.ServiceSlot(2, "u2", Endpoint(parse_address("fd00::2"), 8080)),),
            ),
        ),
        (line(**SERVICE), wire.Service("u1", parse_address("10.96.0.1"), 80, 0, ())),
        (line(**SERVICE, total=0, slots=[]), wire.Service("u1", VIP.address, 80, 0, ())),
    ],
)
def test_what_a_ztunnel_says(text: bytes, expected: wire.Message) -> None:
    assert wire.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        line(),
        line(kind=7),
        line(kind="hello", version=1),
        line(kind="hello", version=True, generation=1),
        line(kind="generation", generation=-1),
        line(kind="generation", generation=1.0),
        line(kind="generation", generation=2**63),
        line(kind="verdict", generation=1, source="", destination="u2", port=80),
        line(kind="verdict", generation=1, source="u1", destination="u2", port=0),
        line(kind="verdict", generation=1, source="u1", destination="u2", port=65536),
        line(kind="cut", id="7"),
        line(kind="cut", id=2**64),
        line(**SERVICE, total=1, slots=[SLOT]),  # more chances than there are
        line(**SERVICE, total=2**32, slots=[SLOT]),
        line(**SERVICE, total=3, slots={}),
        line(**SERVICE, total=3, slots=[7]),
        line(**SERVICE, total=3, slots=[{**SLOT, "weight": 0}]),
        line(**SERVICE, total=3, slots=[{**SLOT, "address": "fe80::1%eth0"}]),
        line(**{**SERVICE, "vip": "10.96.0.1:80"}),
    ],
)
def test_what_is_no_line_of_this_protocol(text: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        wire.parse(data)
    except WireError:
        pass


def flow(number: int) -> FlowReport:
    return FlowReport(number, False, 1, 2, HERE, THERE, VIP)


def test_flows_are_told_in_as_few_lines_as_hold_them() -> None:
    records = [
        wire.flow_record(flow(number), "u" * 36, "v" * 36, 1.23456) for number in range(2000)
    ]
    lines = list(wire.flow_lines("opened", records))
    assert max(map(len, lines)) <= wire.LINE_BYTES_MAX
    assert min(map(len, lines[:-1])) > wire.LINE_BYTES_MAX - 400
    found = [one for text in lines for one in json.loads(text)["flows"]]
    assert [one["id"] for one in found] == list(range(2000))
    assert found[0] == {
        "id": 0,
        "source": "u" * 36,
        "destination": "v" * 36,
        "client": "10.0.0.1:40000",
        "target": "[fd00::2]:80",
        "original": "10.96.0.1:80",
        "age_s": 1.235,
    }
    assert list(wire.flow_lines("opened", [])) == []


def test_a_closed_flow_has_its_figures() -> None:
    closed = FlowReport(1, True, 1, 2, HERE, THERE, VIP, 2.0, 10, 20, 30, 4, "aborted")
    record = wire.closed_record(closed, "u1", "u2", 2.0)
    assert {
        key: record[key] for key in ("sent", "received", "srtt_us", "retransmits", "error")
    } == {
        "sent": 10,
        "received": 20,
        "srtt_us": 30,
        "retransmits": 4,
        "error": "aborted",
    }
