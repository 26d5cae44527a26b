"""The direct path of a worker as a whole: lines of the agent in, counts out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.wire.direct import AgentHello, FlowLine, FlowNews
from tests.support.engine.direct_rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_an_idle_path_has_nothing_to_count(rig: Rig) -> None:
    assert rig.path.counts() == {"flows": 0, "services": 0}
    assert rig.path.gauges() == [
        ("tulle_ztunnel_direct_flows", {}, 0),
        ("tulle_ztunnel_direct_services", {}, 0),
    ]


def test_a_new_agent_hears_every_offer_again(rig: Rig) -> None:
    rig.connect("10.1.0.1:80")
    offered = len(rig.lines)
    assert offered
    rig.path.take(AgentHello(1.0))
    rig.turns()
    assert rig.connect("10.1.0.1:80"), "nothing was forgotten by being said before"


def test_flows_that_make_no_sense_cost_themselves_alone(rig: Rig) -> None:
    rig.path.take(FlowLine(FlowNews.OPENED, [{"id": "x"}, 3]))
    assert rig.path.counts()["flows"] == 0
    assert rig.counted("direct_flows_unreadable") == 2
