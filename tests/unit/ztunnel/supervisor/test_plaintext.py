"""Lines to the agent about plaintext: once each, again for a new agent, and only what is sure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from control.model.policy import Policy
from control.model.workload import Workload
from control.wire.direct import Plaintext
from tests.support.engine.tunnel_mesh import mesh_entries
from tests.unit.ztunnel.mesh.test_plaintext import STRICT, deny
from ztunnel.mesh.state import State
from ztunnel.supervisor.plaintext import PlaintextRefusals


@dataclass(frozen=True)
class NamedPod:
    uid: str
    namespace: str = "shop"
    service_account: str = "default"

    @property
    def name(self) -> str:
        return self.uid


def workload(name: str, *policies: str) -> Workload:
    return Workload(
        uid=name,
        name=name,
        namespace="shop",
        service_account="default",
        authorization_policies=policies,
    )


class Bench:
    def __init__(self) -> None:
        self.state = State(strict=True)
        self.has_agent = True
        self.lines: list[Plaintext] = []
        self.subject = PlaintextRefusals(self.state, self._tell)
        self.pods = [NamedPod("a"), NamedPod("b")]

    def _tell(self, line: Plaintext) -> bool:
        if self.has_agent:
            self.lines.append(line)
        return self.has_agent

    def tell(self, *values: Workload, policies: Iterable[Policy] = ()) -> None:
        self.state.apply(mesh_entries(*values, policies=policies))
        self.subject.update(self.pods)

    def taken(self) -> list[Plaintext]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def bench() -> Bench:
    return Bench()


POLICY = deny(STRICT)
OPEN_A, OPEN_B = Plaintext("a", False), Plaintext("b", False)


def test_each_change_is_told_once_and_all_of_it_to_a_new_agent(bench: Bench) -> None:
    bench.subject.update(bench.pods)
    assert bench.taken() == [], "nothing is known yet"
    bench.tell(workload("a"), workload("b"))
    assert bench.taken() == [OPEN_A, OPEN_B]
    bench.tell(workload("a", POLICY.key), policies=[POLICY])
    assert bench.taken() == [Plaintext("a", True)]
    bench.subject.update(bench.pods)
    assert bench.taken() == []
    bench.subject.again()
    bench.subject.update(bench.pods)
    assert bench.taken() == [Plaintext("a", True), OPEN_B]
    bench.tell(workload("a"))
    assert bench.taken() == [OPEN_A]


def test_what_no_agent_heard_is_told_later(bench: Bench) -> None:
    bench.has_agent = False
    bench.tell(workload("a"), workload("b"))
    bench.has_agent = True
    bench.subject.look(bench.pods[1])
    assert bench.taken() == [OPEN_B]
    bench.subject.update(bench.pods)
    assert bench.taken() == [OPEN_A]


def test_a_pod_that_left_is_told_of_when_it_comes_again(bench: Bench) -> None:
    bench.tell(workload("a"), workload("b"))
    bench.taken()
    bench.subject.update(bench.pods[:1])
    bench.subject.update(bench.pods)
    assert bench.taken() == [OPEN_B]


def test_a_workload_that_is_gone_or_lacks_a_policy_closes_nothing_anew(bench: Bench) -> None:
    bench.tell(workload("a", "shop/absent"), workload("b"))
    assert OPEN_A in bench.taken()
    bench.taken()
    PlaintextRefusals(State(), bench._tell).look(bench.pods[0])
    assert bench.taken() == [], "nothing was ever whole"


def test_a_pod_that_is_added_again_is_told_of_again(bench: Bench) -> None:
    bench.tell(workload("a"), workload("b"))
    bench.taken()
    bench.subject.ready(bench.pods[0])
    assert bench.taken() == [OPEN_A]


def test_a_batch_that_names_its_pods_has_only_those_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tell(workload("a"), workload("b"))
    looked: list[str] = []
    monkeypatch.setattr(bench.subject, "look", lambda pod: looked.append(pod.uid))
    bench.subject.follow(bench.pods, frozenset())
    assert looked == []
    bench.subject.follow(bench.pods, frozenset({("shop", "b"), ("shop", "far")}))
    assert looked == ["b"]
    bench.subject.follow(bench.pods, frozenset())
    assert looked == ["b"]
    bench.subject.follow(bench.pods, None)
    assert looked == ["b", "a", "b"]


@pytest.mark.parametrize("touched", [frozenset({("shop", "a")}), None])
def test_the_end_of_an_update_tells_what_its_parts_changed(
    bench: Bench, touched: frozenset[tuple[str, str]] | None
) -> None:
    bench.tell(workload("a"), workload("b"))
    bench.taken()
    bench.state.apply(mesh_entries(workload("a", POLICY.key))[:-1])  # its policy is still to come
    assert not bench.state.settled
    bench.subject.follow(bench.pods, touched)
    assert bench.taken() == []
    bench.state.apply(mesh_entries(policies=[POLICY]))
    assert bench.state.settled
    bench.subject.follow(bench.pods, frozenset())
    assert bench.taken() == [Plaintext("a", True)]


def test_a_pod_that_comes_in_the_middle_of_an_update_is_told_of_at_its_end(bench: Bench) -> None:
    bench.tell(workload("a"), workload("b"))
    bench.taken()
    bench.state.apply(mesh_entries(workload("a", POLICY.key))[:-1])
    bench.subject.ready(bench.pods[1])
    assert bench.taken() == []
    bench.state.apply(mesh_entries(policies=[POLICY]))
    bench.subject.follow(bench.pods, frozenset())
    assert bench.taken() == [OPEN_B]
