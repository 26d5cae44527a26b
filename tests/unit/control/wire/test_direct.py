"""Lines of direct.sock: what is understood, what is an error, and that both ends mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import layout
from control.kit.errors import WireError
from control.model.address import Endpoint, canonical, parse_address
from control.wire import direct as wire

UIDS = st.text(min_size=1, max_size=20)
PORTS = st.integers(1, 65535)
NUMBERS = st.integers(0, wire.GENERATION_MAX)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(
    canonical
)
SLOTS = st.builds(wire.ShareSlot, st.integers(1, 1000), UIDS, st.builds(Endpoint, ADDRESSES, PORTS))


@st.composite
def shares(draw: st.DrawFn) -> wire.ServiceShare:
    slots = tuple(draw(st.lists(SLOTS, max_size=wire.SLOTS_MAX)))
    total = sum(slot.weight for slot in slots) + draw(st.integers(0, 1000)) if slots else 0
    return wire.ServiceShare(draw(UIDS), draw(ADDRESSES), draw(PORTS), total, slots)


ZTUNNEL_LINES: st.SearchStrategy[wire.ZtunnelLine] = st.one_of(
    st.builds(wire.ZtunnelHello, NUMBERS, NUMBERS, NUMBERS, st.booleans()),
    st.builds(wire.Generation, NUMBERS),
    st.builds(wire.Verdict, NUMBERS, UIDS, UIDS, PORTS),
    shares(),
    st.builds(wire.Plaintext, UIDS, st.booleans(), st.lists(PORTS, max_size=4).map(tuple)),
    st.builds(wire.Cut, st.integers(0, wire.U64_MAX)),
    st.just(wire.Replay()),
)
AGENT_LINES: st.SearchStrategy[wire.AgentLine] = st.one_of(
    st.builds(wire.AgentHello, st.floats(0, 60, exclude_min=True), NUMBERS),
    st.builds(wire.Generation, NUMBERS),
    st.builds(
        wire.FlowLine,
        st.sampled_from(wire.FlowNews),
        st.lists(st.dictionaries(UIDS, st.integers()), max_size=3),
    ),
)


@given(ZTUNNEL_LINES)
def test_the_agent_reads_what_a_ztunnel_wrote(line: wire.ZtunnelLine) -> None:
    assert wire.read_ztunnel_line(wire.encode_line(line)) == line


@given(AGENT_LINES)
def test_a_ztunnel_reads_what_the_agent_wrote(line: wire.AgentLine) -> None:
    assert wire.read_agent_line(wire.encode_line(line)) == line


VIP = parse_address("10.96.0.1")
SLOT = {"weight": 2, "destination": "u2", "address": "fd00::2", "port": 8080}
SERVICE = {"kind": "service", "source": "u1", "vip": "10.96.0.1", "port": 80}
SHARE_SLOT = wire.ShareSlot(2, "u2", Endpoint(parse_address("fd00::2"), 8080))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (wire.ZtunnelHello(3, 7), '{"kind":"hello","version":1,"pid":7,"generation":3}'),
        (wire.AgentHello(2.0), '{"kind":"hello","version":1,"lease_s":2.0}'),
        (wire.Generation(4), '{"kind":"generation","generation":4}'),
        (
            wire.Verdict(4, "u1", "u2", 80),
            '{"kind":"verdict","generation":4,"source":"u1","destination":"u2","port":80}',
        ),
        (
            wire.ServiceShare("u1", VIP, 80, 3, (SHARE_SLOT,)),
            '{"kind":"service","source":"u1","vip":"10.96.0.1","port":80,"total":3,"slots":'
            '[{"weight":2,"destination":"u2","address":"fd00::2","port":8080}]}',
        ),
        (
            wire.ServiceShare("u1", VIP, 80),
            '{"kind":"service","source":"u1","vip":"10.96.0.1","port":80,"total":0,"slots":[]}',
        ),
        (wire.Cut(7), '{"kind":"cut","id":7}'),
        (wire.Replay(), '{"kind":"replay"}'),
        (wire.FlowLine(wire.FlowNews.MOVED, [[1, 2, 3]]), '{"kind":"moved","flows":[[1,2,3]]}'),
    ],
)
def test_the_bytes_are_these(line: wire.ZtunnelLine | wire.AgentLine, text: str) -> None:
    assert wire.encode(line) == text.encode()
    assert wire.encode_line(line) == text.encode() + b"\n"


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line(kind="hello", version=1, generation=3), wire.ZtunnelHello(3)),
        (line(kind="generation", generation=4, news="unheard of"), wire.Generation(4)),
        (line(kind="weather", is_fine=True), wire.Unknown("weather")),
        (line(kind="opened", flows=[]), wire.Unknown("opened")),  # an agent's word
        (
            line(**{**SERVICE, "vip": "::ffff:10.96.0.1"}, total=3, slots=[SLOT]),
            wire.ServiceShare("u1", VIP, 80, 3, (SHARE_SLOT,)),
        ),
        (line(**SERVICE), wire.ServiceShare("u1", VIP, 80)),
    ],
)
def test_a_ztunnels_line_may_say_less_or_more(text: bytes, expected: object) -> None:
    assert wire.read_ztunnel_line(text) == expected


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
        line(kind="hello", version=1, generation=1, pid="7"),
        line(kind="generation", generation=-1),
        line(kind="generation", generation=1.0),
        line(kind="generation", generation=2**63),
        line(kind="verdict", generation=1, source="", destination="u2", port=80),
        line(kind="verdict", generation=1, source="u1", destination="u2", port=0),
        line(kind="verdict", generation=1, source="u1", destination="u2", port=65536),
        line(kind="plaintext", pod="u1"),
        line(kind="plaintext", pod="u1", refused=1),
        line(kind="plaintext", pod="", refused=True),
        line(kind="plaintext", pod="u1", refused=True, but=80),
        line(kind="plaintext", pod="u1", refused=True, but=[0]),
        line(kind="plaintext", pod="u1", refused=True, but=["80"]),
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
def test_a_broken_line_of_a_ztunnel_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        wire.read_ztunnel_line(text)


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense",
        line(kind="hello", version=1),
        line(kind="hello", lease_s=2.0),
        line(kind="hello", version=1, lease_s=0),
        line(kind="hello", version=1, lease_s=-1),
        line(kind="hello", version=1, lease_s=True),
        line(kind="hello", version=1, lease_s="2"),
        b'{"kind":"hello","version":1,"lease_s":NaN}',
        b'{"kind":"hello","version":1,"lease_s":Infinity}',
        b'{"kind":"hello","version":1,"lease_s":1' + b"0" * 400 + b"}",
        line(kind="opened"),
        line(kind="closed", flows={}),
        line(kind="moved", flows=None),
    ],
)
def test_a_broken_line_of_an_agent_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        wire.read_agent_line(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KINDS = st.sampled_from([*wire.FlowNews, "hello", "generation", "verdict", "service", "cut"])
FIELDS = st.dictionaries(
    st.sampled_from(["version", "generation", "lease_s", "source", "port", "slots", "flows", "id"]),
    JSON,
)


@given(st.binary(max_size=200) | st.builds(lambda k, f: line(kind=k, **f), KINDS, FIELDS))
def test_any_bytes_are_a_line_or_an_error(data: bytes) -> None:
    for read in (wire.read_ztunnel_line, wire.read_agent_line):
        try:
            read(data)
        except WireError:
            pass


def test_a_line_that_is_too_long_is_never_written() -> None:
    fitting = "u" * (wire.LINE_BYTES_MAX - len(wire.encode(wire.Verdict(1, "", "b", 80))) - 1)
    assert len(wire.encode_line(wire.Verdict(1, fitting, "b", 80))) == wire.LINE_BYTES_MAX
    with pytest.raises(WireError):
        wire.encode_line(wire.Verdict(1, fitting + "u", "b", 80))


def test_the_limits_are_those_of_the_kernels_maps() -> None:
    assert (wire.SLOTS_MAX, wire.SERVICES_MAX) == (layout.SLOTS_MAX, layout.SERVICES_MAX)
