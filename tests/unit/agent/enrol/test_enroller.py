"""Events of the enroller, on a kernel half in memory and without any namespace."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.datapath.pods import CapturedPod
from agent.enrol.enroller import Enroller, Host, NamespaceTaken, PodMismatch
from agent.enrol.plan import Capture, PodState
from agent.registry import NamespaceGone, Registry
from control.model.address import parse_address
from control.model.intent import Intent
from tests.support.clock import FakeClock
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect
from tests.unit.agent.enrol.conftest import ADDRESS, POD

CAPTURED = CapturedPod("uid", 8, (ADDRESS,), 15001, workload_id=3, direct=True)


def intent(**changes: object) -> Intent:
    base = Intent("uid", "web", "shop", "account", "n1", (ADDRESS,), True, "", True, "")
    return replace(base, **changes)  # type: ignore[arg-type]  # fields of an intent


def made(known: Registry, root: Path, *pods: CapturedPod, direct: bool = True) -> Enroller:
    host = Host("n1", root, 2.0, direct=direct)
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


def test_a_report_withdraws_what_it_does_not_name(enroller: Enroller) -> None:
    enroller.register(POD)
    enroller.facts.book.adopted("uid", Capture(POD.cookie, POD.addresses))
    enroller.reported(frozenset())
    assert enroller.facts.book.pods()["uid"].withdrawn_s is not None
    enroller.reporting(frozenset({"uid"}))
    assert enroller.facts.book.pods()["uid"].withdrawn_s is None


def test_connections_of_unknown_pods_are_unknown(enroller: Enroller) -> None:
    assert enroller.uncaptured_connections("uid") is None
