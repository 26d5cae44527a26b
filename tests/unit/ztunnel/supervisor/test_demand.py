"""Questions of the workers, answers of the control plane, and the order between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from control.model.address import parse_address
from control.model.workload import OuterAddress
from control.wire.delta import SUBSCRIPTIONS_MAX
from tests.support.engine.demand_rig import NODE, DemandRig
from tests.support.engine.meshes import key, pod, service, vip
from tests.support.virtual_time import run_virtual
from ztunnel.mesh.entries import Entry, Op
from ztunnel.refusals import Reason
from ztunnel.supervisor.demand import AWAY_S, Demand
from ztunnel.supervisor.name_book import LIFE_S, NAMES_MAX, SHARE_MAX, NameBook, Stage
from ztunnel.supervisor.stale import makes_stale

CLIENT = pod("client", "10.0.0.1", node=NODE, services={key("own"): ()})
WEB = pod("web", "10.0.0.2", node="n2", services={key("web"): ()})
OTHER = pod("other", "10.0.0.3", node="n3")
SERVICE = service("web", "10.9.0.1")
MESH = (CLIENT, WEB, OTHER, SERVICE, service("own", "10.9.0.2"))


def run(test: Callable[[DemandRig], Coroutine[Any, Any, None]], *mesh: Any) -> None:
    async def whole() -> None:
        rig = DemandRig(*(mesh or MESH))
        await rig.start()
        await test(rig)

    run_virtual(whole())


def told(rig: DemandRig) -> list[tuple[Op, str]]:
    return [(each.op, each.name) for each in rig.published]


def test_a_node_is_told_of_its_own_and_of_nothing_else() -> None:
    async def test(rig: DemandRig) -> None:
        assert rig.worker.synced
        assert rig.worker.has(CLIENT.uid)
        assert rig.worker.has(key("own"))
        assert not rig.worker.has(WEB.uid)
        assert not rig.worker.has(key("web"))

    run(test)


def test_an_answer_is_known_after_everything_it_leads_to() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.9.0.1", "/192.0.2.1")
        names = told(rig)
        for name in ("/10.9.0.1", "/192.0.2.1"):
            assert names.index((Op.KNOWN, name)) > names.index((Op.NEW_SERVICE, key("web")))
            assert names.index((Op.KNOWN, name)) > names.index((Op.ADDRESS, WEB.uid))
        assert "/10.9.0.1" in rig.worker.known
        assert not rig.worker.has(OTHER.uid)
        assert not [each for each in names if each[0] is Op.REMOVE_ADDRESS]

    run(test)


def test_questions_of_one_moment_are_few_requests() -> None:
    async def test(rig: DemandRig) -> None:
        for each in ("p", "q"):
            rig.demand.want(each, ["/10.0.0.2", "/10.0.0.3"], spare=False)
        await rig.settle()
        assert rig.asked.count(["/10.0.0.2", "/10.0.0.3"]) == 1

    run(test)


def test_a_name_is_unknown_before_the_control_plane_removes_what_it_leads_to() -> None:
    """Else it would look, for a moment, as if it led out of the mesh."""

    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2")
        await rig.demand._give_back(rig.demand.book.idle(LIFE_S))
        await rig.settle()
        names = told(rig)
        gone = names.index((Op.REMOVE_ADDRESS, WEB.uid))
        assert names.index((Op.UNKNOWN, "/10.0.0.2")) < gone
        assert not rig.supervisor.has(WEB.uid)
        await rig.want("/10.0.0.2")
        assert rig.worker.has(WEB.uid)

    run(test)


def test_a_name_wanted_while_it_is_given_back_is_answered() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2")
        leaving = rig.demand.book.idle(LIFE_S)
        rig.demand.want("p", ["/10.0.0.2"], spare=False)
        await rig.demand._give_back(leaving)
        await rig.settle()
        assert "/10.0.0.2" in rig.worker.known
        assert rig.worker.has(WEB.uid)

    run(test)


def test_what_comes_later_under_a_name_is_told_unasked() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.9")
        late = pod("late", "10.0.0.9", node="n2")
        await rig.change(*MESH, late)
        assert rig.worker.has(late.uid)
        await rig.change(*MESH)
        assert not rig.worker.has(late.uid)
        assert "/10.0.0.9" in rig.worker.known

    run(test)


def test_a_question_outlives_the_stream() -> None:
    async def test(rig: DemandRig) -> None:
        rig.demand.want("p", ["/10.0.0.2"], spare=False)
        rig.demand._requests.clear()  # lost with the stream
        rig.demand.lost()
        rig.demand.want("p", ["/10.0.0.3"], spare=False)
        await rig.open()
        assert "/10.0.0.2" in rig.worker.known
        assert "/10.0.0.3" in rig.worker.known
        assert rig.refused == []

    run(test)


def test_a_control_plane_that_stays_away_is_a_reason_of_its_own() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2")
        rig.demand.lost()
        rig.demand._away_since_s = -AWAY_S
        await rig.want("/10.0.0.3")
        await rig.want("/10.0.0.4", spare=True)
        assert rig.refused == [("p", ["/10.0.0.3"], Reason.ADDRESS_UNASKED)]
        assert "/10.0.0.2" in rig.worker.known, "what is known stays known"
        await rig.open()
        await rig.want("/10.0.0.3")
        assert "/10.0.0.3" in rig.worker.known

    run(test)


def test_a_pod_with_a_full_share_is_refused_and_nobody_else_is() -> None:
    async def test(rig: DemandRig) -> None:
        rig.demand.book = NameBook(share_max=2)
        await rig.want("/10.0.0.2", "/10.0.0.3", "/10.0.0.4")
        assert rig.refused == [("p", ["/10.0.0.4"], Reason.ADDRESSES_MAX)]
        await rig.want("/10.0.0.4", pod="q")
        assert "/10.0.0.4" in rig.worker.known

    run(test)


def test_names_not_in_use_are_given_back_in_time() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2", "/10.0.0.3")
        for name in ("/10.0.0.2", "/10.0.0.3"):
            rig.demand.book._names[name].used_s = -LIFE_S
        rig.demand.look({"p"}, ["/10.0.0.2"])
        assert list(rig.demand._leaving) == [["/10.0.0.3"]]

    run(test)


@pytest.mark.parametrize(
    ("asked", "changed", "is_new"),
    [
        ("/192.0.2.1", SERVICE, True),
        ("/10.9.0.1", SERVICE, False),
        (key("web"), SERVICE, False),
        ("/10.9.0.1", replace(SERVICE, addresses=(vip("10.9.0.0/24"),)), False),
        (
            "/203.0.113.1",
            replace(
                SERVICE, outer_addresses=(OuterAddress("", parse_address("203.0.113.1"), (80,)),)
            ),
            False,
        ),
    ],
)
def test_a_service_is_new_where_no_answered_name_leads_to_it(
    asked: str, changed: Any, is_new: bool
) -> None:
    """It cannot void what the kernel was told; any other may take over an address."""

    async def test(rig: DemandRig) -> None:
        await rig.want(asked)
        await rig.change(CLIENT, WEB, changed)
        if is_new:
            await rig.want("/10.9.0.1")
        (came,) = (each for each in rig.published if each.name == key("web") and each.body)
        assert (came.op is Op.NEW_SERVICE) is is_new
        assert makes_stale([came], set()) is not is_new

    run(test, CLIENT, WEB)


def test_a_change_of_a_service_that_is_held_is_not_new() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.9.0.1")
        await rig.change(CLIENT, WEB, replace(SERVICE, affinity_s=5))
        assert rig.published[-1].op is not Op.NEW_SERVICE
        assert Op.ADDRESS in {each.op for each in rig.published if each.name == key("web")}

    run(test, CLIENT, WEB, SERVICE)


def test_a_queue_is_worked_off_by_itself() -> None:
    async def test(rig: DemandRig) -> None:
        names = [f"/10.1.{number // 250}.{number % 250}" for number in range(500)]
        rig.demand.want("p", names, spare=False)
        assert rig.demand.book.counts()[Stage.QUEUED.value] == 100
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await rig.demand.run()
        await rig.settle()
        assert all(each in rig.worker.known for each in names)

    run(test)


def test_the_share_of_a_pod_fits_into_what_a_client_may_ask_for() -> None:
    assert SHARE_MAX < NAMES_MAX < SUBSCRIPTIONS_MAX


def test_entries_of_another_kind_pass_as_they_are() -> None:
    async def test(rig: DemandRig) -> None:
        subject: Demand = rig.demand
        broken = Entry(Op.ADDRESS, "shop/x", b"\xff")
        assert list(subject.entries_of(None, [broken])) == [broken]  # type: ignore[arg-type]

    run(test)


def test_everything_counts_as_known_once_all_of_it_is_here_and_not_before() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2")
        rig.published.clear()
        await rig.client._turn_to(on_demand=False)
        await rig.want("/10.0.0.3")
        assert rig.worker.known.on_demand
        assert "/10.0.0.3" not in rig.worker.known
        await rig.open()
        assert not rig.worker.known.on_demand
        everything = [each.uid for each in (CLIENT, WEB, OTHER)] + [key("own"), key("web")]
        assert all(map(rig.worker.has, everything))
        assert rig.published[-1].op is Op.ALL
        assert rig.refused == []

    run(test)


def test_on_demand_again_nothing_is_known_and_what_nobody_asks_for_goes() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.want("/10.0.0.2")
        await rig.client._turn_to(on_demand=False)
        await rig.open()
        rig.published.clear()
        await rig.client._turn_to(on_demand=True)
        await rig.open()
        assert rig.published[0].op is Op.ON_DEMAND, "before anything is removed"
        assert not rig.worker.has(WEB.uid)
        assert rig.worker.has(CLIENT.uid)
        await rig.want("/10.0.0.2")
        assert rig.worker.has(WEB.uid)

    run(test)


def test_a_stream_that_breaks_before_everything_is_here_changes_nothing() -> None:
    async def test(rig: DemandRig) -> None:
        await rig.client._turn_to(on_demand=False)
        rig.client._delta.opening()  # lost
        assert rig.worker.known.on_demand
        await rig.open()
        assert not rig.worker.known.on_demand

    run(test)
