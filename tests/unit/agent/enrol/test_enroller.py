"""Events of the enroller, on a kernel half in memory and without any namespace."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import registry
from agent.datapath.pods import CapturedPod
from agent.enrol.enroller import ContainerDeleted, Enroller, Host, NamespaceTaken, PodMismatch
from agent.enrol.plan import Capture, PodState
from agent.registry import NamespaceGone, Registration, Registry
from control.model.address import parse_address
from control.model.intent import Intent
from tests.support.clock import FakeClock
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect
from tests.unit.agent.enrol.conftest import ADDRESS, POD

CAPTURED = CapturedPod("uid", 8, (ADDRESS,), workload_id=3, direct=True)


def intent(**changes: object) -> Intent:
    base = Intent("uid", "web", "shop", "account", "n1", (ADDRESS,), True, "", True, "")
    return replace(base, **changes)  # type: ignore[arg-type]  # fields of an intent


def made(
    known: Registry, root: Path, *pods: CapturedPod, direct: bool = True, linger_s: float = 0.0
) -> Enroller:
    host = Host("n1", root, 2.0, linger_s, direct=direct)
    return Enroller(host, FakeDatapath(*pods), known, FakeClock(), FakeDirect())


@pytest.fixture
def enroller(known: Registry, tmp_path: Path) -> Enroller:
    return made(known, tmp_path)


def test_a_registration_waits_for_its_intent(enroller: Enroller) -> None:
    enroller.register(POD)
    assert enroller.facts.book.state("uid") == (PodState.PENDING, "no_intent")
    enroller.intents_changed({"uid": intent()}, [])
    assert enroller.facts.book.state("uid") == (PodState.PENDING, "no_ztunnel")
    known = enroller.facts.known.get("uid")
    assert known is not None
    assert known.service_account == "account"


def test_an_intent_that_was_there_first_is_used(enroller: Enroller) -> None:
    enroller.intents_changed({"uid": intent(enrolled=False)}, [])
    assert enroller.facts.book.pods() == {}
    enroller.register(POD)
    assert enroller.facts.book.state("uid") == (PodState.NOT_ENROLLED, "")


def test_a_namespace_belongs_to_one_pod(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.register(POD)  # the same again is no news
    with pytest.raises(NamespaceTaken, match="registered as uid"):
        enroller.register(replace(POD, uid="other"))


def test_a_name_that_contradicts_the_control_plane_is_refused(enroller: Enroller) -> None:
    enroller.intents_changed({"uid": intent(name="db")}, [])
    with pytest.raises(PodMismatch, match="uid is shop/db"):
        enroller.register(POD)
    assert enroller.facts.known.get("uid") is None


def test_an_intent_that_contradicts_a_registration_is_not_used(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.intents_changed({"uid": intent(name="db")}, [])
    assert enroller.facts.book.state("uid") == (PodState.PENDING, "no_intent")


def test_a_withdrawn_intent_leaves_the_pod_as_it_is(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.intents_changed({"uid": intent()}, [])
    enroller.intents_changed({}, ["uid", "unknown"])
    pod = enroller.facts.book.pods()["uid"]
    assert (pod.enrolled, pod.netns) == (None, POD.cookie)


def test_new_addresses_reach_the_plan(enroller: Enroller) -> None:
    enroller.register(POD)
    both = (parse_address("10.0.0.5"), parse_address("10.0.0.6"), parse_address("fd00::5"))
    enroller.intents_changed({"uid": intent(addresses=both)}, [])
    assert enroller.facts.book.pods()["uid"].addresses == (both[0], both[2])  # one of a family


@pytest.mark.parametrize("registered_first", [True, False])
def test_a_sandbox_has_the_addresses_that_its_runtime_gave_it(
    enroller: Enroller, registered_first: bool
) -> None:
    """The pod object has those of the sandbox before until the kubelet has written it."""
    fresh = replace(
        POD, container_id="second", is_placed=True, addresses=(parse_address("10.0.0.9"),)
    )
    old = {"uid": intent(addresses=(parse_address("10.0.0.5"), parse_address("fd00::5")))}
    if registered_first:
        enroller.register(fresh)
        enroller.intents_changed(old, [])
    else:
        enroller.intents_changed(old, [])
        enroller.register(fresh)
    assert enroller.facts.book.pods()["uid"].addresses == fresh.addresses
    known = enroller.facts.known.get("uid")
    assert known is not None
    assert known.addresses == fresh.addresses


def probes(enroller: Enroller) -> dict[str, frozenset[int]]:
    datapath: Any = enroller._datapath
    return dict(datapath.probes)


OLD = parse_address("10.0.0.99")


@pytest.mark.parametrize("registered_first", [True, False])
def test_the_runtimes_word_on_addresses_counts_more_than_one_from_before(
    enroller: Enroller, registered_first: bool
) -> None:
    """A sandbox is made anew: the pod's object has the address of the one before until it runs."""
    placed = replace(POD, is_placed=True)
    stale = {"uid": intent(addresses=(OLD,))}
    if registered_first:
        enroller.register(placed)
        enroller.intents_changed(stale, [])
    else:
        enroller.intents_changed(stale, [])
        enroller.register(placed)
    assert enroller.facts.book.pods()["uid"].addresses == (ADDRESS,)
    known = enroller.facts.known.get("uid")
    assert known is not None
    assert (known.addresses, known.service_account) == ((ADDRESS,), "account")


@pytest.mark.parametrize("registered_first", [True, False])
def test_the_ports_of_probes_reach_the_kernel(enroller: Enroller, registered_first: bool) -> None:
    told = {"uid": intent(probe_ports=(80, 81))}
    if registered_first:
        enroller.register(POD)
        enroller.intents_changed(told, [])
    else:
        enroller.intents_changed(told, [])
        assert probes(enroller) == {}
        enroller.register(POD)
    assert probes(enroller) == {"uid": frozenset({80, 81})}
    enroller.intents_changed({"uid": intent()}, [])
    assert probes(enroller) == {"uid": frozenset()}


def test_a_pod_that_leaves_the_mesh_keeps_its_probes_to_the_end(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.intents_changed({"uid": intent(probe_ports=(80,))}, [])
    enroller.intents_changed({"uid": intent(enrolled=False)}, [])
    enroller.intents_changed({}, ["uid"])
    assert probes(enroller) == {"uid": frozenset({80})}


def test_a_kernel_that_refuses_ports_does_not_keep_the_pod_out(enroller: Enroller) -> None:
    datapath: Any = enroller._datapath
    datapath.refuses = True
    enroller.register(POD)
    enroller.intents_changed({"uid": intent(probe_ports=(80,))}, [])
    assert enroller.facts.book.state("uid") == (PodState.PENDING, "no_ztunnel")


def test_a_node_without_the_direct_path_allows_it_to_nobody(
    known: Registry, tmp_path: Path
) -> None:
    enroller = made(known, tmp_path, direct=False)
    enroller.intents_changed({"uid": intent()}, [])
    enroller.register(POD)
    assert not enroller.facts.book.pods()["uid"].direct


def test_a_caller_waits_until_the_pod_may_start(enroller: Enroller) -> None:
    async def scenario() -> None:
        enroller.register(POD)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(enroller.settled("uid"))
            await asyncio.sleep(0)
            assert not waiting.done()
            enroller.intents_changed({"uid": intent(enrolled=False)}, [])
        assert waiting.result() is PodState.NOT_ENROLLED
        with pytest.raises(NamespaceGone):
            await enroller.settled("unknown")
        await enroller.forgotten("unknown")

    asyncio.run(scenario())


def test_captures_of_a_past_run_are_taken_over(known: Registry, tmp_path: Path) -> None:
    known.put(POD)
    other = replace(CAPTURED, uid="lost", cookie=9)
    enroller = made(known, tmp_path, CAPTURED, other)
    enroller.adopt()
    # Neither namespace is there any more, so both are released and forgotten.
    datapath = enroller._datapath
    assert datapath.captured() == []
    assert enroller.facts.book.pods().keys() <= {"uid", "lost"}


def test_a_pod_that_lingers_does_so_after_a_restart(
    known: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "is_there", lambda registration: True)
    known.put(POD)
    before = made(known, tmp_path, CAPTURED, linger_s=30.0)
    before.adopt()
    before.facts.clock.pass_s(100)  # type: ignore[attr-defined]  # a fake clock
    before.intents_changed({"uid": intent(enrolled=False)}, [])
    before._kernel.take_steps()
    before.reported(frozenset())
    before.facts.clock.pass_s(2)  # type: ignore[attr-defined]  # a fake clock
    before._kernel.take_steps()
    assert before._datapath.captured() == []
    for passed_s, kept in ((0, ["uid"]), (29.9, ["uid"]), (30, [])):
        after = made(known, tmp_path, linger_s=30.0)
        after.adopt()
        assert after.facts.book.untold(1, 102 + passed_s) == kept
    after.register(POD)
    found = known.get("uid")
    assert found is not None
    assert found.released_s == 102, "registered again in the same namespace"


def test_a_report_withdraws_what_it_does_not_name(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.facts.book.adopted("uid", Capture(POD.cookie, POD.addresses))
    enroller.reported(frozenset())
    assert enroller.facts.book.pods()["uid"].withdrawn_s is not None
    enroller.reporting(frozenset({"uid"}))
    assert enroller.facts.book.pods()["uid"].withdrawn_s is None


def test_connections_of_unknown_pods_are_unknown(enroller: Enroller) -> None:
    assert enroller.uncaptured_connections("uid") is None


def test_the_next_agent_knows_who_waits_for_the_direct_path(
    known: Registry, tmp_path: Path
) -> None:
    known.put(replace(POD, held_until_s=130.0))
    after = made(known, tmp_path, replace(CAPTURED, direct=False))
    after.adopt()
    after.intents_changed({"uid": intent(enrolled=True)}, [])
    assert after.facts.book.pods()["uid"].held_until_s == 130.0
    after.register(POD)
    found = known.get("uid")
    assert found is not None
    assert found.held_until_s == 130.0, "registered again in the same namespace"
    after.register(replace(POD, cookie=POD.cookie + 1))
    assert after.facts.book.pods()["uid"].held_until_s == 0.0, "in another one nothing was open"


def test_only_while_somebody_waits_for_it_a_pod_is_starting(enroller: Enroller) -> None:
    async def scenario() -> None:
        enroller.register(POD)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(enroller.settled("uid"))
            await asyncio.sleep(0)
            assert enroller.facts.book.pods()["uid"].starting
            waiting.cancel()
        assert not enroller.facts.book.pods()["uid"].starting

    asyncio.run(scenario())


OLD, NEW = "44f0ebfc9134", "f7c37be3a2da"


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Paths of namespaces that are there."""
    paths: set[str] = set()
    monkeypatch.setattr(registry, "is_there", lambda each: each.netns in paths)
    return paths


def sandbox(container_id: str, cookie: int) -> Registration:
    return replace(
        POD, container_id=container_id, cookie=cookie, netns=f"/run/netns/cni-{container_id}"
    )


# One letter a call of CNI, about the old sandbox or the new one; the pod's sandbox at the end. An
# old namespace goes with its first DEL.
@pytest.mark.parametrize(
    ("calls", "left"),
    [
        ("ADD old, DEL old, ADD new, DEL old, DEL old", NEW),  # as recorded on a real cluster
        ("ADD old, ADD new, DEL old", NEW),
        ("ADD old, DEL old, ADD new, ADD old", NEW),
        ("ADD old, DEL old, ADD new, ADD old, DEL old", NEW),
        ("DEL old, ADD new, DEL old", NEW),
        ("ADD new, ADD new, DEL old", NEW),
        ("ADD old, ADD old, DEL old", None),
        ("ADD old, DEL old, DEL old", None),
        ("ADD old, DEL old, ADD old", OLD),  # started once more under its old id
        ("ADD old, DEL old, ADD new, DEL new", None),
        ("ADD old, DEL old, ADD new, DEL new, DEL old", None),
        ("ADD old, DEL", OLD),
        ("ADD", ""),
        ("ADD, DEL old", ""),
        ("ADD, DEL", None),
    ],
)
def test_a_deletion_is_about_one_container(
    enroller: Enroller, alive: set[str], calls: str, left: str | None
) -> None:
    names = {"old": OLD, "new": NEW, "": ""}
    cookies = {OLD: 8, NEW: 9, "": 10}
    for call in calls.split(", "):
        verb, _, name = call.partition(" ")
        each = sandbox(names[name], cookies[names[name]])
        if verb == "DEL":
            enroller.deleted("uid", each.container_id)
            continue
        alive.add(each.netns)
        with suppress(ContainerDeleted):
            enroller.register(each)
    pod, known = enroller.facts.book.pods().get("uid"), enroller.facts.known.get("uid")
    if left is None:
        assert pod is None or pod.netns is None
    else:
        assert pod is not None
        assert known is not None
        assert (pod.netns, known.container_id) == (cookies[left], left)


def test_a_deletion_of_another_container_counts_once_the_namespace_is_gone(
    enroller: Enroller, alive: set[str]
) -> None:
    enroller.register(sandbox(NEW, 9))
    assert enroller.deleted("uid", OLD)
    pod = enroller.facts.book.pods().get("uid")
    assert pod is None or pod.netns is None


def test_a_namespace_that_is_used_again_belongs_to_the_new_container(
    enroller: Enroller, alive: set[str]
) -> None:
    alive.add(POD.netns)
    enroller.register(replace(POD, container_id=OLD))
    enroller.register(replace(POD, container_id=NEW))
    assert not enroller.deleted("uid", OLD)
    assert enroller.deleted("uid", NEW)
