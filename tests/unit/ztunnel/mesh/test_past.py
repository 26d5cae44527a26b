"""The past in two spans, and the promise that rests on it: half of an update lets in nobody that
both the old and the new state refuse, in whatever order its parts come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from control.model.address import Endpoint
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Deny,
    Match,
    Permit,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
    decide,
)
from control.model.workload import Workload
from tests.support.engine.meshes import at, entry, mesh, pod, spiffe
from ztunnel.mesh.authorize import Admit, admit_plaintext, recheck
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.past import Past
from ztunnel.mesh.roles import Accepted
from ztunnel.mesh.state import State

# -- the spans


def test_the_first_value_before_a_change_is_kept() -> None:
    past: Past[str] = Past()
    past.note("a", "one")
    past.note("a", "two")
    past.note("b", None)
    assert past.was("a", "three") == "one"
    assert past.was("b", "new") is None
    assert past.was("c", "now") == "now"
    assert sorted(past.names()) == ["a", "b"]


def test_the_older_span_goes_and_the_newer_one_is_next() -> None:
    past: Past[str] = Past()
    past.note("a", "one")
    past.move_on()
    past.note("a", "two")
    past.note("b", "three")
    assert (past.was("a", None), past.was("b", None)) == ("one", "three")
    assert sorted(past.names()) == ["a", "b"]
    past.move_on()
    assert (past.was("a", None), past.was("b", None)) == ("two", "three")
    past.move_on()
    assert not past
    past.note("a", "four")
    past.settle()
    assert past.was("a", "now") == "now"


def test_names_that_come_and_go_leave_nothing() -> None:
    state = mesh()
    for number in range(1000):
        policy = Policy(f"p{number}", "shop", PolicyScope.NAMESPACE, Action.ALLOW)
        state.apply([entry(policy), Entry(Op.REMOVE_POLICY, policy.key)])
        web = pod(f"w{number}")
        state.apply([entry(web), Entry(Op.REMOVE_ADDRESS, web.uid)])
    assert len(state._policies.past) == 0
    assert len(state._past) <= 1000, "one for each workload that went"
    state.apply([Entry(Op.SNAPSHOT)])
    assert state.settled


# -- the promise

CALLERS = (None, spiffe("alice"), spiffe("bob"))
PORTS = (80, 90)
KEYS = (("shop", "a"), ("shop", "b"), ("root", "c"), ("root", "d"))
PODS = (pod("web", "10.0.0.2"), pod("db", "10.0.0.3", namespace="data"))
CALLER_AT = at("10.0.0.1")


@dataclass(frozen=True)
class Whole:
    """A state that the control plane has."""

    policies: tuple[Policy, ...]
    workloads: tuple[Workload, ...]

    def entries(self) -> dict[str, Entry]:
        return {each.name: each for each in map(entry, (*self.policies, *self.workloads))}

    def allows(self, workload: Workload, caller: SpiffeId | None, port: int) -> bool:
        named = next(
            (each.authorization_policies for each in self.workloads if each.uid == workload.uid), ()
        )
        applicable = [
            each
            for each in self.policies
            if each.scope is PolicyScope.GLOBAL
            or (each.scope is PolicyScope.NAMESPACE and each.namespace == workload.namespace)
            or each.key in named
        ]
        return isinstance(decide(applicable, question(workload, caller, port)), Permit)


def question(workload: Workload, caller: SpiffeId | None, port: int) -> Connection:
    return Connection(caller, CALLER_AT, workload.addresses[0], port)


def some_rule(rng: random.Random) -> Rule:
    match = Match(
        principals=tuple(
            StringMatch(StringMatchKind.EXACT, each.principal)
            for each in CALLERS
            if each is not None and rng.random() < 0.4
        ),
        destination_ports=tuple(each for each in PORTS if rng.random() < 0.4),
    )
    return Rule() if match.is_empty else Rule((Clause((match,)),))


def some_state(rng: random.Random) -> Whole:
    policies = tuple(
        Policy(
            name,
            namespace,
            rng.choice(list(PolicyScope)),
            rng.choice(list(Action)),
            tuple(some_rule(rng) for _ in range(rng.randrange(3))),
        )
        for namespace, name in KEYS
        if rng.random() < 0.6
    )
    selectors = [each.key for each in policies if each.scope is PolicyScope.WORKLOAD_SELECTOR]
    return Whole(
        policies,
        tuple(
            replace(
                each,
                authorization_policies=tuple(key for key in selectors if rng.random() < 0.6),
            )
            for each in PODS
        ),
    )


def change(rng: random.Random, old: Whole, new: Whole) -> list[Entry]:
    """Parts of the update in any order; some resources go and come again, or come twice."""
    removal = {Op.POLICY: Op.REMOVE_POLICY, Op.ADDRESS: Op.REMOVE_ADDRESS}
    before, after = old.entries(), new.entries()
    lanes: list[list[Entry]] = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now and rng.random() < 0.8:
            continue
        lane = [] if now is None else [now]
        if was is not None and (now is None or rng.random() < 0.2):
            lane.insert(0, Entry(removal[was.op], name))
        lanes.append(lane)
    parts: list[Entry] = []
    while lanes := [each for each in lanes if each]:
        parts.append(rng.choice(lanes).pop(0))
    return parts


def cases(seed: str, number: int) -> Iterator[tuple[random.Random, Whole, Whole]]:
    rng = random.Random(seed)
    for _ in range(number):
        yield rng, some_state(rng), some_state(rng)


def started(whole: Whole) -> State:
    state = State()
    state.apply([*whole.entries().values(), Entry(Op.SNAPSHOT)])
    return state


def holes(state: State, old: Whole, new: Whole) -> Iterator[str]:
    for each, caller, port in product(PODS, CALLERS, PORTS):
        local = state.local_workload(each.namespace, each.name, each.service_account)
        if local is None or old.allows(each, caller, port) or new.allows(each, caller, port):
            continue
        asked = question(local, caller, port)
        if not isinstance(recheck(state, local, asked), Deny):
            yield f"{caller} stays at {each.name}:{port}"
        if caller is None:
            accepted = Accepted(Endpoint(each.addresses[0], port))
            if isinstance(admit_plaintext(state, local, accepted, CALLER_AT), Admit):
                yield f"a stranger is let in at {each.name}:{port}"


@pytest.mark.parametrize("how", ["in one span", "over two spans", "with a new worker"])
def test_no_order_lets_in_whom_both_states_refuse(how: str) -> None:
    """A new worker gets a snapshot of what is half way."""
    half_way = 0
    for rng, old, new in cases(how, 400):
        state = started(old)
        parts = change(rng, old, new)
        turn = rng.randrange(len(parts) + 1)
        for index, part in enumerate(parts):
            if index == turn and how == "over two spans":
                state.apply([Entry(Op.LATER)])
            if index == turn and how == "with a new worker":
                entries, state = list(state.snapshot()), State()
                state.apply(entries)
            state.apply([part])
            assert not list(holes(state, old, new)), (old, new, parts[: index + 1])
            half_way += any(_weaker(state, old, new))
        state.apply([Entry(Op.SNAPSHOT)])
        assert state.settled
        for each, caller, port in product(PODS, CALLERS, PORTS):
            local = state.local_workload(each.namespace, each.name, each.service_account)
            assert local is not None
            answer = recheck(state, local, question(local, caller, port))
            assert isinstance(answer, Permit) == new.allows(each, caller, port)
    assert half_way > 40, "hardly any case needs the past"


def _weaker(state: State, old: Whole, new: Whole) -> Iterator[bool]:
    """True for each call that what is held now would let in, and both states refuse."""
    for each, caller, port in product(PODS, CALLERS, PORTS):
        local = state.local_workload(each.namespace, each.name, each.service_account)
        if local is not None:
            allowed = decide(state.policies_for(local), question(local, caller, port))
            refused = not (old.allows(each, caller, port) or new.allows(each, caller, port))
            yield isinstance(allowed, Permit) and refused
