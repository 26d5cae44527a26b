"""Connections of the kernel's: the same records, the same question, an end that others bring."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.wire.direct import FlowLine, FlowNews
from tests.support.engine.direct_rig import SERVER, Rig
from tests.support.engine.meshes import spiffe
from tests.support.engine.rows import every_row
from ztunnel.direct.flows import CONFIRM_S, FlowBook
from ztunnel.mesh.entries import Entry, Op
from ztunnel.transport.ends import RelayEnd

OPENED = {
    "id": 5,
    "source": "uid-client",
    "destination": "uid-server",
    "client": "10.0.0.1:40000",
    "target": "10.0.0.2:8080",
    "original": "10.1.0.1:80",
    "age_s": 1.5,
}
CLOSED = {**OPENED, "sent": 100, "received": 7, "srtt_us": 85, "retransmits": 1, "error": ""}
CUT = {"kind": "cut", "id": 5}
DENY_ALL = Policy("no", "shop", PolicyScope.NAMESPACE, Action.ALLOW)
ALLOW = Policy(
    "yes",
    "shop",
    PolicyScope.NAMESPACE,
    Action.ALLOW,
    (
        Rule(
            (
                Clause(
                    (
                        Match(
                            principals=(
                                StringMatch(
                                    StringMatchKind.EXACT, "cluster.local/ns/shop/sa/client"
                                ),
                            )
                        ),
                    )
                ),
            )
        ),
    ),
)


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    caplog.set_level(logging.INFO, "access")
    made = Rig()
    yield made
    made.close()


def opened(rig: Rig, **fields: Any) -> None:
    rig.hear(kind="opened", flows=[{**OPENED, **fields}])


def closed(rig: Rig, **fields: Any) -> None:
    rig.hear(kind="closed", flows=[{**CLOSED, **fields}])


def exported(rig: Rig) -> dict[tuple[str, str], int]:
    for each in (rig.client.outbound, rig.server.inbound):
        for connection in each:
            connection.outcome.sync()
    return {
        (name.removeprefix("istio_tcp_").removesuffix("_total"), labels["reporter"]): value
        for name, labels, value in every_row(rig.engine.counters)
        if labels.get("path") == "direct"
    }


def test_an_open_flow_is_on_both_pods_books(rig: Rig) -> None:
    rig.change(ALLOW)
    opened(rig)
    rig.hear(kind="moved", flows=[[5, 10, 20], [6, 1, 1]])
    (out,), (into,) = rig.client.outbound, rig.server.inbound
    view = out.outcome.view(0)
    assert (view["path"], view["protocol"]) == ("direct", "TCP")
    assert (view["src"], view["originalDst"]) == ("10.0.0.1:40000", "10.1.0.1:80")
    assert view["actualDst"] == "10.0.0.2:8080"
    assert view["sourceIdentity"] == str(spiffe("client"))
    assert view["destinationIdentity"] == str(spiffe("server"))
    assert view["service"] == "web.shop.svc.cluster.local"
    assert view["policy"] == "shop/yes"
    assert (view["bytesSent"], view["bytesReceived"]) == (10, 20)
    assert into.outcome.view(0)["bytesSent"] == 20
    assert rig.lines == []
    assert exported(rig)["connections_opened", "source"] == 1
    assert exported(rig)["received_bytes", "destination"] == 10
    assert rig.engine.connections == 0, "a drain must not wait for it"


def test_its_lines_are_those_of_a_tunnel_and_say_what_the_kernel_measured(rig: Rig) -> None:
    opened(rig)
    closed(rig)
    source, destination = rig.access()
    assert (source["direction"], destination["direction"]) == ("outbound", "inbound")
    assert (source["bytes_sent"], destination["bytes_sent"]) == (100, 7)
    for line in (source, destination):
        assert (line["path"], line["srtt"], line["retransmits"]) == ("direct", "85us", 1)
        assert line["dst.service"] == "web.shop.svc.cluster.local"
        assert line["src.identity"] == str(spiffe("client"))
        assert line["dst.addr"] == "10.0.0.2:8080"
        assert 1500 <= int(line["duration"].removesuffix("ms")) < 30_000
        assert "error" not in line
    assert not rig.client.outbound
    assert not rig.server.inbound
    assert exported(rig)["connections_closed", "destination"] == 1


def test_a_short_one_is_told_only_at_its_end(rig: Rig) -> None:
    rig.change(ALLOW)
    closed(rig, original="10.0.0.2:8080")
    assert len(rig.access()) == 2
    assert "dst.service" not in rig.access()[0]
    found = exported(rig)
    assert (found["connections_opened", "source"], found["connections_closed", "source"]) == (1, 1)
    assert len(rig.path.flows) == 0


def test_one_that_never_came_about_has_failed(rig: Rig) -> None:
    closed(rig, error="failed", sent=0, received=0)
    assert exported(rig)["connections_failed", "source"] == 1
    assert exported(rig)["connections_opened", "source"] == 0
    assert rig.access()[0]["error"] == "connect failed"


def test_a_reset_says_so(rig: Rig) -> None:
    opened(rig)
    closed(rig, error="aborted")
    assert rig.access()[0]["error"] == RelayEnd.APP_RESET.value


def test_v6_is_as_good(rig: Rig) -> None:
    v6 = {"client": "[fd00::1]:40000", "target": "[fd00::2]:8080", "original": "[fd01::1]:80"}
    opened(rig, **v6)
    closed(rig, **v6)
    assert rig.access()[0]["src.addr"] == "[fd00::1]:40000"


def test_being_told_again_changes_nothing(rig: Rig) -> None:
    opened(rig)
    opened(rig)
    assert len(rig.client.outbound) == 1
    assert exported(rig)["connections_opened", "source"] == 1


def test_a_policy_that_forbids_it_cuts_it(rig: Rig) -> None:
    opened(rig)
    rig.change(DENY_ALL)
    rig.turns()
    assert rig.said() == [CUT]
    assert rig.engine.counters.refusals == {"policy_changed": 1}
    assert len(rig.server.inbound) == 1, "it is over when the kernel says so"
    closed(rig)
    for line in rig.access():
        assert (line["error"], line["level"]) == (RelayEnd.POLICY.value, "warning")
        assert line["bytes_sent"] in (100, 7)
    assert not rig.server.inbound


def test_a_policy_that_allows_it_leaves_it(rig: Rig) -> None:
    opened(rig)
    rig.change(ALLOW)
    rig.turns()
    assert rig.said() == []


def test_a_pod_that_went_and_came_back_with_a_policy_that_forbids_it_cuts_it(rig: Rig) -> None:
    shut = replace(DENY_ALL, scope=PolicyScope.WORKLOAD_SELECTOR)
    opened(rig)
    rig.change(Entry(Op.REMOVE_ADDRESS, SERVER.uid))
    rig.turns()
    rig.change(shut)
    rig.turns()
    assert rig.said() == []
    rig.change(replace(SERVER, authorization_policies=(shut.key,)))
    rig.turns()
    assert rig.said() == [CUT]


def test_one_that_slipped_through_is_cut_when_it_is_told(rig: Rig) -> None:
    rig.change(DENY_ALL)
    opened(rig)
    assert rig.said() == [CUT]
    opened(rig)
    assert rig.said() == [CUT], "still open: once more"


def test_a_policy_that_nobody_understands_cuts(rig: Rig) -> None:
    opened(rig)
    rig.change(Entry(Op.REJECTED_POLICY, "shop/broken", b"\xff"))
    rig.turns()
    assert rig.said() == [CUT]


def test_a_dry_run_is_counted(rig: Rig) -> None:
    dry = Policy("dry", "shop", PolicyScope.NAMESPACE, Action.DENY, (Rule(),), dry_run=True)
    rig.change(dry)
    opened(rig)
    closed(rig, id=6)
    assert rig.counted("would_deny") == 2
    assert rig.said() == []


def test_a_workload_that_the_control_plane_has_forgotten_keeps_it(rig: Rig) -> None:
    opened(rig)
    rig.change(Entry(Op.REMOVE_ADDRESS, SERVER.uid), DENY_ALL)
    rig.turns()
    assert rig.said() == []


def test_flows_of_pods_that_are_gone_are_counted(rig: Rig) -> None:
    opened(rig, destination="uid-gone")
    closed(rig, source="uid-gone")
    assert rig.counted("direct_flows_unknown_pod") == 2
    assert rig.access() == []


def test_a_deleted_pod_takes_its_flows_along(rig: Rig) -> None:
    opened(rig)
    rig.engine.remove_pod("uid-server")
    assert rig.said() == [CUT]
    assert {line["error"] for line in rig.access()} == {RelayEnd.POD_DELETED.value}
    assert not rig.client.outbound
    closed(rig)
    assert len(rig.access()) == 2, "the last word is no news"
    assert rig.engine.connections == 0


def test_a_drain_leaves_them_to_the_kernel(rig: Rig) -> None:
    opened(rig)
    for connection in list(rig.client.outbound):
        connection.abort(RelayEnd.DRAINED)
    for connection in list(rig.server.inbound):
        connection.abort(RelayEnd.DRAINED)
    assert rig.said() == []
    assert rig.access() == []
    assert not rig.client.outbound
    assert not rig.server.inbound


def test_a_handling_that_breaks_fails_closed(rig: Rig) -> None:
    opened(rig)
    (side,) = rig.server.inbound
    side.on_bug()
    assert rig.said() == [CUT]


def test_what_a_new_agent_does_not_name_is_over(rig: Rig) -> None:
    opened(rig)
    opened(rig, id=6)
    rig.hear(kind="hello", version=1, lease_s=2)
    opened(rig, id=6)
    rig.time.now_s += CONFIRM_S + 1
    rig.turns()
    assert len(rig.path.flows) == 1
    assert rig.counted("direct_flows_lost") == 1
    assert len(rig.access()) == 2
    assert rig.said() == []


def test_the_table_is_bounded(rig: Rig) -> None:
    rig.path.flows = FlowBook(rig.engine, lambda _number: None, flows_max=1)
    opened(rig)
    opened(rig, id=6)
    assert rig.counted("direct_flows_over_limit") == 1
    closed(rig, id=6)
    assert len(rig.access()) == 2


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "opened", "flows": [{}, None, 3, {**OPENED, "client": "nowhere"}]},
        {"kind": "closed", "flows": [{**CLOSED, "sent": "many"}]},
        {"kind": "moved", "flows": [[], None, [5], "x"]},
    ],
)
def test_nonsense_costs_what_makes_no_sense(rig: Rig, line: dict[str, Any]) -> None:
    opened(rig, id=9)
    rig.hear(**line)
    assert len(rig.path.flows) == 1
    assert rig.counted("direct_flows_unreadable") == len(line["flows"])


def test_unknown_kinds_mean_nothing(rig: Rig) -> None:
    rig.hear(kind="future", flows=[1])
    rig.hear(kind="generation", generation=9)
    assert rig.said() == []


def test_a_pod_that_comes_after_its_flow_is_still_asked_about(rig: Rig) -> None:
    rig.change(DENY_ALL)
    server = rig.engine.pods.pop("uid-server")
    opened(rig)
    assert rig.said() == []
    rig.engine.pods["uid-server"] = server
    rig.path.on_pods()
    assert rig.said() == [CUT]
    rig.path.on_pods()
    assert rig.said() == []


def test_a_flow_that_is_over_when_its_pod_comes_is_none(rig: Rig) -> None:
    server = rig.engine.pods.pop("uid-server")
    opened(rig)
    opened(rig, id=6)
    closed(rig)
    rig.engine.pods["uid-server"] = server
    rig.path.on_pods()
    assert rig.path.counts()["flows"] == 1


def test_flows_without_a_pod_are_bounded_as_well(rig: Rig) -> None:
    book = FlowBook(rig.engine, lambda _number: None, flows_max=1)
    for number in (5, 6):
        book.take(FlowLine(FlowNews.OPENED, [{**OPENED, "id": number, "source": "uid-gone"}]))
    assert rig.counted("direct_flows_over_limit") == 1
