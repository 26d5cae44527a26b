"""Answers of a cluster, as the steps read them."""

from __future__ import annotations

from tests.e2e import views
from tests.e2e.views import Object, Tally


def pod(name: str, ready: str = "True", restarts: int = 0, **meta: object) -> Object:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"name": name, **meta},
        "spec": {"nodeName": "n1"},
        "status": {
            "conditions": [{"type": "Initialized", "status": "True"}, condition],
            "containerStatuses": [{"restartCount": restarts}],
            "podIP": "10.0.0.1",
        },
    }


def test_no_pods_are_not_ready_pods() -> None:
    assert views.not_ready([]) == "no pods"
    assert views.not_ready([pod("a"), pod("b", "False"), {**pod("c"), "status": {}}]) == (
        "not ready: b, c"
    )
    assert views.not_ready(iter([pod("a")])) == ""


def test_the_newest_warning_about_a_pod_is_found() -> None:
    def event(name: str, kind: str, when: str | None, message: str) -> Object:
        about = {"involvedObject": {"name": name}, "type": kind, "message": message}
        return {**about, "lastTimestamp": when, "eventTime": None}

    found = [
        event("a", "Warning", "2026-01-01T00:00:09Z", "the newest"),
        event("a", "Warning", "2026-01-01T00:00:01Z", "older"),
        event("a", "Warning", None, "without a time"),
        event("a", "Normal", "2026-01-01T00:00:10Z", "pulled"),
        event("b", "Warning", "2026-01-01T00:00:10Z", "another's"),
    ]
    assert views.last_warning(found, "a") == "the newest"
    assert views.last_warning(found, "c") == ""


def test_readiness_that_went_and_came_back_is_a_change() -> None:
    before = views.steadiness([pod("a"), pod("b"), pod("c"), pod("d")])
    flapped = pod("b")
    flapped["status"]["conditions"][1]["lastTransitionTime"] = "2026-01-01T00:00:05Z"
    now = views.steadiness([pod("a"), flapped, pod("c", restarts=1)])
    assert views.changed(before, now) == "readiness or restarts changed: b, c, d"
    assert views.changed(before, before) == ""


def test_both_families_or_the_one_that_there_is() -> None:
    assert views.addresses(pod("a")) == ["10.0.0.1"]
    both = pod("a")
    both["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    assert [views.url(each) for each in views.addresses(both)] == [
        "http://10.0.0.1:8080/",
        "http://[fd00::1]:8080/",
    ]


def test_counts_are_added_and_compared() -> None:
    before = Tally.parse('{"answered": 5, "failed": 0, "echoed": 9, "broken": 1, "last": "x"}')
    now = Tally.parse('{"answered": 9, "failed": 1, "echoed": 20, "broken": 1, "last": "reset"}')
    made = now.since(before)
    assert (made.answered, made.failed, made.broken) == (4, 1, 0)
    assert str(made) == ("4 requests answered, 1 failed; 0 open connections broken (last: reset)")
    assert (made + made).answered == 8
    assert before.since(before).last == ""


def test_pods_that_an_agent_does_not_have_are_named_with_their_node() -> None:
    leaving = pod("old", deletionTimestamp="2026-01-01T00:00:00Z")
    host = pod("host")
    host["spec"]["hostNetwork"] = True
    wanted = views.by_node([pod("a"), pod("b"), leaving, host])
    assert wanted == {"n1": {"a", "b"}}
    status = {"pods": [{"name": "a", "state": "captured"}, {"name": "b", "state": "pending"}]}
    assert views.uncaptured({"n1": status}, wanted) == "not captured: n1/b"
    assert views.uncaptured({}, wanted) == "not captured: n1/a, n1/b"
    assert views.names([pod("b"), leaving, pod("a")]) == ["a", "b"]
