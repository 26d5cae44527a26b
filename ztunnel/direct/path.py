"""A worker's part of the direct path: its offers to the kernel half, and the flows of it."""

from __future__ import annotations

from typing import Any

from ztunnel.connections.engine import Engine
from ztunnel.direct.flows import Flows
from ztunnel.direct.offers import Offers, Send
from ztunnel.direct.verdicts import Place


class DirectPath:
    """`tell` passes a line up to the agent."""

    def __init__(self, engine: Engine, tell: Send) -> None:
        config = engine.config
        self.offers = Offers(engine, Place(config.node, config.trust_domain), tell)
        self.flows = Flows(engine, lambda number: tell({"kind": "cut", "id": number}))

    def take(self, line: dict[str, Any]) -> None:
        """A line of the agent's."""
        if line.get("kind") == "hello":
            self.offers.on_agent()
            self.flows.on_agent()
        else:
            self.flows.take(line)

    def counts(self) -> dict[str, int]:
        return {"flows": len(self.flows), "services": self.offers.learned}

    def gauges(self) -> list[tuple[str, dict[str, str], int]]:
        return [(f"tulle_ztunnel_direct_{name}", {}, n) for name, n in self.counts().items()]
