"""A door for the control plane's methods, and calls that it admits."""

from __future__ import annotations

from datetime import timedelta

from control.server.callers.door import Door
from control.server.callers.tokens import NodeTokens
from control.server.metrics import Metrics
from tests.support.calls import Call
from tests.support.clock import FakeClock

SUBJECT = "system:serviceaccount:istio-system:ztunnel"


class DoorBench:
    """`call(node)` is a call with a good token; counts are read from the metrics."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.tokens = NodeTokens(b"k" * 32, SUBJECT, self.clock)
        self.door = Door(self.tokens, self.metrics)

    def call(self, node: str = "n1") -> Call:
        return Call(f"Bearer {self.tokens.issue(node, timedelta(hours=1))}")

    def refused(self, method: str, reason: str) -> float:
        labels = {"method": method, "reason": reason}
        return self.metrics.registry.get_sample_value("tulle_control_refused_total", labels) or 0
