"""Flows on direct.sock: there and back, in lines that fit, and one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.address import Endpoint, canonical, parse_endpoint
from control.wire import direct_flows as wire
from control.wire.direct import LINE_BYTES_MAX, U32_MAX, U64_MAX, FlowLine, read_agent_line

UIDS = st.text(min_size=1, max_size=20)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(
    canonical
)
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(1, 65535))
U64S = st.integers(0, U64_MAX)
U32S = st.integers(0, U32_MAX)
AGES = st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000)
OPENED = st.builds(wire.OpenedFlow, U64S, UIDS, UIDS, ENDPOINTS, ENDPOINTS, ENDPOINTS, AGES)
MOVED = st.builds(wire.MovedFlow, U64S, U64S, U64S)
CLOSED = st.builds(wire.ClosedFlow, OPENED, U64S, U64S, U32S, U32S, st.text(max_size=10))

FlowT = TypeVar("FlowT")


def through_lines(
    write: Callable[[Iterable[FlowT]], Iterator[bytes]],
    read: Callable[[object], FlowT],
    flows: list[FlowT],
) -> list[FlowT]:
    found: list[FlowT] = []
    for data in write(flows):
        assert len(data) <= LINE_BYTES_MAX
        line = read_agent_line(data)
        assert isinstance(line, FlowLine)
        # As compact as JSON gets: the templates write what an encoder would.
        again = {"kind": line.kind, "flows": line.flows}
        assert data == json.dumps(again, separators=(",", ":")).encode() + b"\n"
        found += map(read, line.flows)
    return found


@given(st.lists(OPENED, max_size=3))
def test_opened_flows_survive_the_wire(flows: list[wire.OpenedFlow]) -> None:
    assert through_lines(wire.opened_lines, wire.read_opened, flows) == flows


@given(st.lists(MOVED, max_size=3))
def test_moved_flows_survive_the_wire(flows: list[wire.MovedFlow]) -> None:
    assert through_lines(wire.moved_lines, wire.read_moved, flows) == flows


@given(st.lists(CLOSED, max_size=3))
def test_closed_flows_survive_the_wire(flows: list[wire.ClosedFlow]) -> None:
    assert through_lines(wire.closed_lines, wire.read_closed, flows) == flows


FLOW = {
    "id": 5,
    "source": "u1",
    "destination": "u2",
    "client": "10.0.0.1:40000",
    "target": "[fd00::2]:80",
    "original": "10.96.0.1:80",
    "age_s": 1.235,
}
FIGURES = {"sent": 10, "received": 20, "srtt_us": 30, "retransmits": 4, "error": "aborted"}
CLOSED_FLOW = wire.ClosedFlow(
    wire.OpenedFlow(
        5,
        "u1",
        "u2",
        parse_endpoint("10.0.0.1:40000"),
        parse_endpoint("[fd00::2]:80"),
        parse_endpoint("10.96.0.1:80"),
        1.23456,
    ),
    10,
    20,
    30,
    4,
    "aborted",
)


def test_the_bytes_are_these() -> None:
    (opened,) = wire.opened_lines([CLOSED_FLOW.flow])
    (closed,) = wire.closed_lines([CLOSED_FLOW])
    (moved,) = wire.moved_lines([wire.MovedFlow(5, 10, 20)])
    compact = json.JSONEncoder(separators=(",", ":")).encode
    assert opened.decode() == compact({"kind": "opened", "flows": [FLOW]}) + "\n"
    assert closed.decode() == compact({"kind": "closed", "flows": [{**FLOW, **FIGURES}]}) + "\n"
    assert moved == b'{"kind":"moved","flows":[[5,10,20]]}\n'


def test_many_flows_take_as_few_lines_as_hold_them() -> None:
    flows = [CLOSED_FLOW.flow._replace(id=number, source="u" * 36) for number in range(2000)]
    lines = list(wire.opened_lines(flows))
    assert max(map(len, lines)) <= LINE_BYTES_MAX
    assert min(map(len, lines[:-1])) > LINE_BYTES_MAX - 400
    found = [flow["id"] for line in lines for flow in json.loads(line)["flows"]]
    assert found == list(range(2000))
    assert list(wire.opened_lines([])) == []


BAD_OPENED: list[object] = [
    None,
    3,
    [],
    {},
    *({**FLOW, "id": bad} for bad in (-1, 2**64, "5", 5.0, True)),
    *({**FLOW, "source": bad} for bad in ("", None, 7)),
    *({**FLOW, "age_s": bad} for bad in (None, "1", True, float("nan"), float("inf"), 10**400)),
    *(
        {**FLOW, "client": bad}
        for bad in ("", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1: 1", "x:1")
    ),
    *({**FLOW, "client": bad} for bad in ("fd00::1:1", "10.0.0.1:²", "10.0.0.1:" + "9" * 5000)),
    *({**FLOW, "target": bad} for bad in ("", "10.0.0.1", "10.0.0.1:0", None)),
    {**FLOW, "original": ""},
]


@pytest.mark.parametrize("flow", BAD_OPENED)
def test_a_broken_flow_is_refused(flow: object) -> None:
    with pytest.raises(WireError):
        wire.read_opened(flow)
    with pytest.raises(WireError):
        wire.read_closed({**flow, **FIGURES} if isinstance(flow, dict) else flow)


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {**FIGURES, "sent": "many"},
        {**FIGURES, "received": -1},
        {**FIGURES, "srtt_us": 2**64},
        {**FIGURES, "retransmits": None},
        {**FIGURES, "error": None},
    ],
)
def test_a_closed_flow_needs_its_figures(figures: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.read_closed({**FLOW, **figures})


@pytest.mark.parametrize("flow", [[], None, [5], "x", [1, 2, "3"], [1, 2, -3], [True, 1, 1], {}])
def test_a_moved_flow_is_three_numbers(flow: object) -> None:
    with pytest.raises(WireError):
        wire.read_moved(flow)


def test_an_age_below_zero_is_none() -> None:
    assert wire.read_opened({**FLOW, "age_s": -0.25}).age_s == 0


@given(OPENED, MOVED, CLOSED)
def test_every_flow_has_its_number(
    opened: wire.OpenedFlow, moved: wire.MovedFlow, closed: wire.ClosedFlow
) -> None:
    written = [*wire.opened_lines([opened]), *wire.moved_lines([moved])]
    numbers = [
        wire.flow_id(json.loads(line)["flows"][0])
        for line in [*written, *wire.closed_lines([closed])]
    ]
    assert numbers == [opened.id, moved.id, closed.flow.id]


@pytest.mark.parametrize("flow", [None, 3, "x", {}, [], {"id": "1"}, [-1], {"id": True}, [2**64]])
def test_a_flow_without_a_number_cannot_be_passed_on(flow: object) -> None:
    with pytest.raises(WireError):
        wire.flow_id(flow)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*FLOW]), inner)
        ),
        max_leaves=10,
    )
)
def test_any_json_is_a_flow_or_an_error(value: object) -> None:
    for read in (wire.read_opened, wire.read_moved, wire.read_closed, wire.flow_id):
        try:
            read(value)
        except WireError:
            pass
