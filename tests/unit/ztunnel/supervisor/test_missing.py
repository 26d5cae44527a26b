"""Policies that are named and have not come: told once, and once more when they have."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest

from control.model.policy import Action, Policy, PolicyScope
from tests.support.engine.meshes import entry, mesh, pod
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.supervisor.missing import LINES_MAX, NAMES_MAX, MissingWatch, missing_policies


@dataclass  # not hashable, like `HeldPod`
class Served:
    name: str
    uid: str = "p"
    namespace: str = "shop"

    @property
    def service_account(self) -> str:
        return self.name


WEB = pod("web", authorization_policies=("shop/p",))
P = Policy("p", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.DENY)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [each.getMessage() for each in caplog.records]
    caplog.clear()
    return found


def test_a_name_is_told_when_it_is_missing_and_when_it_has_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    state, watch, pods = mesh(WEB), MissingWatch(), [Served("web"), Served("other", uid="q")]
    watch.look(state, pods)
    (line,) = lines(caplog)
    assert "policy.missing" in line
    watch.look(state, pods)
    assert lines(caplog) == []
    state.apply([entry(P)])
    watch.look(state, pods)
    (line,) = lines(caplog)
    assert "policy.arrived" in line
    state.apply([Entry(Op.REMOVE_POLICY, P.key), Entry(Op.SNAPSHOT)])
    watch.look(state, [])
    assert lines(caplog) == []


def test_many_pods_are_a_few_lines_a_look_and_each_has_its_own_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    names = [f"web{number}" for number in range(2 * LINES_MAX + 3)]
    state = mesh(*(replace(WEB, name=each, uid=each, service_account=each) for each in names))
    watch, pods = MissingWatch(), [Served(each, uid=each) for each in names]
    watch.look(state, pods)
    assert len(lines(caplog)) == LINES_MAX + 1
    watch.look(state, pods)
    assert len(lines(caplog)) == LINES_MAX + 1
    state.apply([entry(P)])  # the last three were not told of, and have nothing to take back
    arrived = []
    for _ in range(3):
        watch.look(state, pods)
        arrived += lines(caplog)
    assert sum("policy.arrived" in each for each in arrived) == 2 * LINES_MAX
    assert not watch._told


def test_nothing_is_missing_before_the_first_snapshot_and_few_names_are_shown() -> None:
    many = replace(WEB, authorization_policies=tuple(f"shop/{number}" for number in range(100)))
    state = State()
    state.apply([entry(many)])
    assert missing_policies(state, Served("web")) == ()
    state.apply([Entry(Op.SNAPSHOT)])
    assert len(missing_policies(state, Served("web"))) == NAMES_MAX
