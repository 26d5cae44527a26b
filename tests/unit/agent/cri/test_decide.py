"""Sandboxes to register, and registrations that are over."""

from __future__ import annotations

from agent.cri.decide import STARTING_S_MAX, Registered, Sightings, completed, over, to_register
from agent.cri.sandboxes import Sandbox, current


def sandbox(sandbox_id: str, uid: str = "u", *, is_ready: bool = True, created: int = 1) -> Sandbox:
    return Sandbox(sandbox_id, uid, "shop", "web", is_ready, created)


def pod(container_id: str, uid: str = "u", **more: bool) -> Registered:
    return Registered(uid, container_id, **{"has_namespace": True, **more})


def test_a_running_pod_is_registered_once() -> None:
    ready = current([sandbox("a")])
    assert [each.id for each in to_register(ready, {}, ())] == ["a"]
    assert to_register(ready, {"u": pod("a")}, ()) == []
    assert to_register(ready, {}, {"a"}) == []


def test_a_new_sandbox_replaces_the_old_one_and_a_nameless_registration_gets_an_id() -> None:
    ready = current([sandbox("b", created=2), sandbox("a", is_ready=False)])
    assert [each.id for each in to_register(ready, {"u": pod("a")}, ())] == ["b"]
    assert [each.id for each in to_register(ready, {"u": pod("")}, ())] == ["b"]
    gone = pod("b", has_namespace=False)
    assert [each.id for each in to_register(ready, {"u": gone}, ())] == ["b"]


def test_a_pod_is_over_as_soon_as_its_sandbox_is_not_ready_any_more() -> None:
    seen = Sightings()
    assert over([sandbox("a")], [pod("a")], seen, 0.0) == []
    assert over([sandbox("a", is_ready=False)], [pod("a")], seen, 1.0) == [pod("a")]
    assert over([], [pod("a")], seen, 2.0) == [pod("a")]  # and again, until it is released
    assert over([], [], seen, 3.0) == []
    assert (seen.ready, seen.missing_since_s) == (set(), {})


def test_a_pod_that_is_not_listed_yet_is_starting() -> None:
    seen = Sightings()
    for now_s in (0.0, 60.0, STARTING_S_MAX - 1):
        assert over([], [pod("a")], seen, now_s) == []
    assert over([sandbox("a")], [pod("a")], seen, STARTING_S_MAX) == []
    assert seen.missing_since_s == {}


def test_a_pod_that_was_dead_before_we_started_is_over_in_the_end() -> None:
    seen = Sightings()
    listed = [sandbox("a", is_ready=False)]
    assert over(listed, [pod("a")], seen, 5.0) == []
    assert over(listed, [pod("a")], seen, 5.0 + STARTING_S_MAX) == [pod("a")]


def test_a_registration_that_is_no_runtimes_is_left_alone() -> None:
    seen = Sightings()
    for now_s in (0.0, STARTING_S_MAX * 2):
        assert over([], [pod(""), pod("b", has_namespace=False)], seen, now_s) == []


def test_memory_is_that_of_registered_pods() -> None:
    seen = Sightings()
    over([sandbox(str(number), str(number)) for number in range(100)], [], seen, 0.0)
    over([], [], seen, 1.0)
    assert seen.ready == set()


def test_a_job_that_is_done_is_completed_and_a_starting_or_crashing_pod_is_not() -> None:
    left, wanted = pod("a", is_left_behind=True), pod("a")
    assert completed([left], alive=(), any_at_all={"a"}) == [left]
    assert completed([left], alive={"a"}, any_at_all={"a"}) == []  # deleted by force, it lives on
    assert completed([left], alive=(), any_at_all=()) == []  # no container yet
    assert completed([wanted], alive=(), any_at_all={"a"}) == []  # between two tries
