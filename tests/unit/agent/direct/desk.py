"""A ledger at work: the commands that came of each input, kept apart by kind."""

from __future__ import annotations

import json
from typing import Any

from agent.datapath.flows import FlowReport
from agent.direct import commands as do
from agent.direct.commands import Command
from agent.direct.flows import FlowTable
from agent.direct.ledger import DirectPod, Ledger
from control.model.address import parse_address, parse_endpoint
from control.wire import direct as wire

S = 10**9
OLD_PID, NEW_PID = 100, 200
A4, B4, C4 = (parse_address(f"10.0.0.{number}") for number in (1, 2, 3))
B6 = parse_address("fd00::2")
VIP = parse_address("10.96.0.1")


class Desk:
    """A ledger and what came of it so far."""

    def __init__(self, kernel_generation: int = 0, flows_max: int = 100) -> None:
        self.flows = FlowTable(flows_max)
        self.ledger = Ledger(kernel_generation, self.flows)
        self.state = do.SetState(0, 0)
        self.sent: dict[int, list[dict[str, Any]]] = {}
        self.others: list[Command] = []
        self.do(self.ledger.start())

    def do(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            match command:
                case do.SetState():
                    self.state = command
                case do.Send(peer, line):
                    self.sent.setdefault(peer, []).append(json.loads(line))
                case _:
                    self.others.append(command)
        return commands

    def take(self) -> list[Command]:
        taken, self.others = self.others, []
        return taken

    def join(self, peer: int, pid: int = NEW_PID, generation: int = 5) -> None:
        self.do(self.ledger.joined(peer, pid))
        self.say(peer, wire.ZtunnelHello(generation))

    def say(
        self, peer: int, message: wire.ZtunnelLine | wire.Unknown, now_s: float = 1.0
    ) -> list[Command]:
        return self.do(self.ledger.said(peer, message, now_s))

    def renew(self, now_s: float) -> None:
        self.do(self.ledger.renew(int(now_s * S)))

    def capture(self, uid: str, workload: int, *addresses: Any) -> None:
        self.do(self.ledger.captured(DirectPod(uid, workload, addresses)))

    def ignored(self) -> dict[str, int]:
        return dict(self.ledger.counts.ignored)

    def runs_at(self, now_s: float) -> bool:
        return self.state.lease_until_ns > now_s * S


def desk_in_force() -> Desk:
    """One ztunnel, current, lease until 12 s; pods a and b."""
    made = Desk()
    made.do(made.ledger.newest(NEW_PID, 1.0))
    made.join(1)
    made.renew(10.0)
    made.capture("a", 11, A4)
    made.capture("b", 12, B4, B6)
    return made


def verdict(generation: int = 5, source: str = "a", destination: str = "b") -> wire.Verdict:
    return wire.Verdict(generation, source, destination, 80)


def service(*slots: wire.ShareSlot, source: str = "a") -> wire.ServiceShare:
    return wire.ServiceShare(source, VIP, 80, 10 if slots else 0, slots)


def slot(destination: str = "b", address: str = "10.0.0.2", weight: int = 1) -> wire.ShareSlot:
    return wire.ShareSlot(weight, destination, parse_endpoint(f"{address}:8080"))


def event(number: int, is_closed: bool = False, source: int = 11) -> FlowReport:
    ends = (parse_endpoint("10.0.0.1:40000"), parse_endpoint("10.0.0.2:80"))
    return FlowReport(number, is_closed, source, 12, *ends, ends[1])
