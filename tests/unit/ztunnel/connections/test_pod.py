"""A pod's view of the state, and its listeners."""

from __future__ import annotations

from dataclasses import replace

from tests.support.engine.meshes import entry, mesh, pod
from ztunnel.connections.pod import Pod

WEB = pod("web", "10.0.0.1")


def make() -> Pod:
    return Pod("uid", "web", "shop", "web", -1)


def test_a_pod_is_unknown_until_the_state_has_it() -> None:
    state = mesh()
    served = make()
    assert served.workload(state) is None
    state.apply([entry(WEB)])
    assert served.workload(state) == WEB


def test_a_pod_is_looked_up_once_per_generation() -> None:
    state = mesh(WEB)
    served = make()
    first = served.workload(state)
    assert served.workload(state) is first
    state.apply([entry(replace(WEB, node="n2"))])
    changed = served.workload(state)
    assert changed is not None
    assert changed.node == "n2"


def test_a_workload_of_another_service_account_is_another_pod() -> None:
    assert make().workload(mesh(replace(WEB, service_account="other"))) is None


class Closing:
    def __init__(self) -> None:
        self.closed = 0

    def take_rest(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed += 1


def test_listeners_are_closed_once() -> None:
    served, listener = make(), Closing()
    served.listeners.append(listener)
    served.stop_listening()
    served.stop_listening()
    assert listener.closed == 1
