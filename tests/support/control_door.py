"""A door for the control plane's methods, and calls that it admits. One connection has come."""

from __future__ import annotations

from datetime import timedelta

from control.model.route import WaypointKey
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import node_tenant
from control.server.callers.door import AdmittedCall, Door
from control.server.callers.speakers import IsWaypoint, no_waypoint
from control.server.callers.tokens import Caller, NodeTokens
from control.server.metrics import Metrics
from tests.support.calls import Call
from tests.support.clock import FakeClock

SUBJECT = "system:serviceaccount:istio-system:ztunnel"


class DoorBench:
    """`call(node)` is a call with a good token; counts are read from the metrics."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.is_waypoint: IsWaypoint = no_waypoint
        self.tokens = NodeTokens(
            b"k" * 32, SUBJECT, self.clock, is_waypoint=lambda key: self.is_waypoint(key)
        )
        self.arrivals = Arrivals(self.metrics, self.clock, 100)
        self.door = Door(self.tokens, self.arrivals)
        self.arrivals.open("10.0.0.1", 40000, lambda why: None, lambda: None)

    def call(self, node: str = "n1", waypoint: WaypointKey | None = None) -> Call:
        return Call(f"Bearer {self.tokens.issue(node, timedelta(hours=1), waypoint)}")

    def admitted(self, node: str = "n1") -> AdmittedCall:
        return AdmittedCall(Caller(node, SUBJECT), node_tenant(node), "10.0.0.1:40000")

    def refused(self, method: str, reason: str) -> float:
        labels = {"method": method, "reason": reason}
        return self.metrics.registry.get_sample_value("tulle_control_refused_total", labels) or 0
