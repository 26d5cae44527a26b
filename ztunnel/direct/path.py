"""A worker's part of the direct path: its offers to the kernel half, and the kernel's flows."""

from __future__ import annotations

from control.wire.direct import AgentHello, AgentLine, Cut, FlowLine, Unknown
from ztunnel.connections.engine import Engine
from ztunnel.direct.flows import FlowBook
from ztunnel.direct.offers import Offers, Tell
from ztunnel.direct.verdicts import Place


class WorkerDirect:
    """`tell` passes a line up to the agent."""

    def __init__(self, engine: Engine, tell: Tell) -> None:
        config = engine.config
        self.offers = Offers(engine, Place(config.node, config.trust_domain), tell)
        self.flows = FlowBook(engine, lambda number: tell(Cut(number)))

    def take(self, line: AgentLine | Unknown) -> None:
        """Act on a line of the agent. Generations are for the supervisor alone."""
        if isinstance(line, AgentHello):
            self.offers.on_agent()
            self.flows.on_agent()
        elif isinstance(line, FlowLine):
            self.flows.take(line)

    def on_pods(self) -> None:
        """A pod of this worker came or went."""
        self.offers.on_pods()
        self.flows.on_pods()

    def counts(self) -> dict[str, int]:
        return {"flows": len(self.flows), "services": self.offers.learned}

    def gauges(self) -> list[tuple[str, dict[str, str], int]]:
        return [(f"tulle_ztunnel_direct_{name}", {}, n) for name, n in self.counts().items()]
