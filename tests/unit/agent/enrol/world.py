"""A node's real world beside its book: every step is checked against it as it is taken."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from agent.enrol import plan
from agent.enrol.book import RETRY_S, Book
from agent.enrol.plan import (
    AddToZtunnel,
    AwaitDrain,
    Capture,
    CapturePod,
    DeleteFromZtunnel,
    Forget,
    Release,
    ReportPod,
    SetDirect,
)
from control.model.address import Address, parse_address

ADDRESSES = (parse_address("10.0.0.1"), parse_address("fd00::1"))
OTHER = (parse_address("10.0.0.2"),)


@dataclass
class World:
    """The real world, beside the book's beliefs about it."""

    book: Book = field(default_factory=lambda: Book(2.0, linger_s=3.0))
    now_s: float = 0.0
    listening: set[tuple[int, str, int]] = field(default_factory=set)  # (ztunnel, uid, namespace)
    kernel: dict[str, Capture] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)  # uid → namespace it lives in
    wanted: dict[str, bool] = field(default_factory=dict)
    direct: dict[str, bool] = field(default_factory=dict)  # uid → what the control plane allows
    believed: frozenset[str] = frozenset()  # what the control plane tells peers
    released: set[str] = field(default_factory=set)  # and not captured again
    changed_s: dict[str, float] = field(default_factory=dict)  # uid → when it stopped to believe
    ztunnels: list[int] = field(default_factory=list)
    under_way: dict[int, AddToZtunnel] = field(default_factory=dict)
    numbers: int = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def is_leaving(self, uid: str) -> bool:
        """And the agent has heard of it: after a restart the last good state holds until then."""
        return self.book.pods()[uid].enrolled is False

    def take(self, step: plan.Step, succeeds: bool) -> None:
        match step:
            case AddToZtunnel(_, ztunnel, _):
                if ztunnel not in self.under_way:
                    self.book.adding(step)
                    self.under_way[ztunnel] = step
            case CapturePod(uid, ztunnel, netns, addresses):
                self.capture(step, uid, ztunnel, netns, addresses, succeeds)
            case SetDirect(uid, direct):
                assert not (direct and self.is_leaving(uid)), "direct while it leaves"
                if succeeds:
                    self.kernel[uid] = replace(self.kernel[uid], direct=direct)
                    self.book.direct_set(step)
                else:
                    self.book.failed(uid, "kernel", self.now_s)
            case Release(uid):
                self.release(uid, succeeds)
            case DeleteFromZtunnel(uid, ztunnel):
                if ztunnel not in self.under_way:
                    held = self.kernel.get(uid)
                    assert held is None or held.ztunnel != ztunnel, "dropped under a capture"
                    self.assert_no_peer_comes(uid, ztunnel)
                    self.listening -= {e for e in self.listening if e[:2] == (ztunnel, uid)}
                    self.book.removed(step)
            case Forget(uid):
                assert uid not in self.kernel, "forgotten while captured"
                held_by = {e for e in self.listening if e[1] == uid and e[0] in self.ztunnels}
                assert not held_by, "a ztunnel still holds the namespace"
                self.book.forgotten(uid)
            case ReportPod() | AwaitDrain():
                pass

    def assert_no_peer_comes(self, uid: str, ztunnel: int) -> None:
        """Nobody uses HBONE to a pod that runs and that its last ztunnel drops."""
        here = (ztunnel, uid, self.alive.get(uid)) in self.listening
        others = any(
            (each, uid, self.alive.get(uid)) in self.listening
            for each in self.ztunnels
            if each != ztunnel
        )
        if here and not others and uid in self.released:
            assert uid not in self.believed, "dropped while peers use HBONE"
            assert self.now_s >= self.changed_s.get(uid, 0.0) + 2.0, "dropped before the drain"

    def capture(
        self,
        step: CapturePod,
        uid: str,
        ztunnel: int,
        netns: int,
        addresses: tuple[Address, ...],
        succeeds: bool,
    ) -> None:
        assert (ztunnel, uid, netns) in self.listening, "captured before anybody listens"
        assert ztunnel in self.ztunnels
        assert not any(c.netns == netns for u, c in self.kernel.items() if u != uid)
        pod = self.book.pods()[uid]
        if uid not in self.kernel and pod.failure is None and uid not in self.believed:
            assert pod.offered_s is not None, "captured before peers could know"
            assert self.now_s >= pod.offered_s + plan.UNHEARD_S_MAX, "peers were not told first"
        if succeeds:
            assert not (step.direct and self.is_leaving(uid)), "direct while it leaves"
            self.kernel[uid] = Capture(netns, addresses, ztunnel, step.direct)
            self.released.discard(uid)
            self.book.captured(step)
        else:
            self.book.failed(uid, "map_full", self.now_s)

    def release(self, uid: str, succeeds: bool) -> None:
        held = self.kernel[uid]
        if self.alive.get(uid) == held.netns:
            assert self.wanted.get(uid) is False, "a pod of the mesh was let out"
            assert not held.direct, "released while others reach it directly"
        if succeeds:
            del self.kernel[uid]
            if self.alive.get(uid) == held.netns:
                self.released.add(uid)
            self.book.released(uid, self.now_s)
        else:
            self.book.failed(uid, "kernel", self.now_s)

    def finish_add(self, ztunnel: int, succeeds: bool) -> None:
        step = self.under_way.pop(ztunnel, None)
        if step is None:
            return
        if succeeds:
            self.listening -= {e for e in self.listening if e[:2] == (ztunnel, step.uid)}
            self.listening.add((ztunnel, step.uid, step.netns))
            self.book.added(step, self.now_s)
        else:
            self.book.failed(step.uid, "ztunnel_refused", self.now_s)

    def register(self, uid: str) -> None:
        self.released.discard(uid)
        self.alive[uid] = self.number()
        self.book.registered(uid, self.alive[uid], ADDRESSES, self.wanted.get(uid))
        if uid in self.wanted:
            self.book.allowed_direct(uid, self.direct.get(uid, True))

    def delete(self, uid: str) -> None:
        self.alive.pop(uid, None)
        self.released.discard(uid)
        self.book.gone(uid)

    def want(self, uid: str, enrolled: bool, addresses: tuple[Address, ...] | None) -> None:
        self.wanted[uid] = enrolled
        if uid in self.book.pods():
            self.book.wanted(uid, enrolled, addresses, self.now_s)
            self.book.allowed_direct(uid, self.direct.get(uid, True))

    def switch(self, uid: str) -> None:
        self.direct[uid] = not self.direct.get(uid, True)
        if uid in self.wanted:
            self.want(uid, self.wanted[uid], None)

    def report(self, arrives: bool, answered: bool) -> None:
        truth = frozenset(self.book.report())
        self.book.reporting(truth)
        if arrives:
            for uid in self.believed - truth:
                self.changed_s[uid] = self.now_s
            self.believed = truth
            if answered:
                self.book.reported(truth, self.now_s)

    def join(self) -> None:
        if len(self.ztunnels) < 3:
            self.ztunnels.append(self.number())
            self.book.ztunnel_joined(self.ztunnels[-1], self.ztunnels[-1] * 7 % 5)

    def leave(self, pick: random.Random) -> None:
        if self.ztunnels:
            ztunnel = self.ztunnels.pop(pick.randrange(len(self.ztunnels)))
            self.under_way.pop(ztunnel, None)
            self.listening -= {e for e in self.listening if e[0] == ztunnel}
            self.book.ztunnel_left(ztunnel)

    def restart(self) -> None:
        """The agent dies and adopts what it finds; ztunnels have to connect again."""
        self.ztunnels.clear()
        self.under_way.clear()
        self.listening.clear()
        self.book = Book(2.0, linger_s=3.0)
        for uid, netns in self.alive.items():
            self.book.registered(uid, netns, ADDRESSES, None)
        for uid, held in self.kernel.items():
            self.book.adopted(uid, Capture(held.netns, held.addresses, direct=held.direct))

    def hear_intents(self) -> None:
        """The control plane may be away for long after a restart."""
        for uid, enrolled in self.wanted.items():
            if uid in self.book.pods():
                self.want(uid, enrolled, None)

    def settle(self) -> None:
        """No more surprises: everything that can be done is done."""
        self.hear_intents()
        for _ in range(200):
            self.now_s += 1.0
            self.report(arrives=True, answered=True)
            for step in self.book.ready(self.now_s):
                self.take(step, succeeds=True)
            for ztunnel in list(self.under_way):
                self.finish_add(ztunnel, succeeds=True)


# Weights: most of the time things go on; a run has some two hundred events.
EVENTS = {
    "step": 30, "finish": 15, "tick": 6, "report": 5, "report_lost": 2, "register": 2, "delete": 1,
    "want": 3, "unwant": 2, "move": 1, "switch": 3, "join": 2, "leave": 1, "restart": 2, "hear": 3,
}  # fmt: skip
EVENTS_A_RUN = 200


def happen(world: World, name: str, pick: random.Random) -> None:
    uid = pick.choice(("a", "b"))
    match name:
        case "step":
            ready = list(world.book.ready(world.now_s))
            if ready:
                world.take(pick.choice(ready), succeeds=pick.random() < 0.85)
        case "finish":
            for ztunnel in list(world.under_way):
                world.finish_add(ztunnel, succeeds=pick.random() < 0.85)
        case "register":
            world.register(uid)
        case "delete":
            world.delete(uid)
        case "want" | "unwant":
            world.want(uid, name == "want", None)
        case "move":
            world.want(uid, world.wanted.get(uid, True), pick.choice((ADDRESSES, OTHER)))
        case "switch":
            world.switch(uid)
        case "report":
            world.report(arrives=True, answered=True)
        case "report_lost":
            world.report(arrives=pick.random() < 0.5, answered=False)
        case "join":
            world.join()
        case "leave":
            world.leave(pick)
        case "restart":
            world.restart()
        case "hear":
            world.hear_intents()
        case "tick":
            world.now_s += pick.choice((0.5, 2.0, RETRY_S))
