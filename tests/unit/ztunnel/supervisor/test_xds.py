"""Effects of a response on the state, the workers and the answer; without a stream."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from control.model.policy import Action, Policy, PolicyScope, Rule
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.support.engine.meshes import entry, pod, service
from tests.support.virtual_time import run_virtual
from ztunnel.config import ZtunnelConfig
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.supervisor.inbox import Inbox
from ztunnel.supervisor.settling import Settling
from ztunnel.supervisor.xds import (
    BACKOFF_MAX_S,
    STEP_ENTRIES,
    TYPES,
    XdsClient,
    XdsEnded,
    _beside,
    node_info,
)

CONFIG = ZtunnelConfig("control:1", "control:1", Path("zds"), Path("run"), node="n1")


class Bench:
    def __init__(self) -> None:
        self.state = State(strict=True)
        self.published: list[list[Entry]] = []
        self.client = XdsClient(CONFIG, self.state, self._publish)
        self.answers: list[bytes] = []
        self.meanwhile: list[bytes] = []  # read while the first entries are passed on
        self._nonces = 0

    async def _publish(self, entries: list[Entry]) -> None:
        self.published.append(entries)
        while self.meanwhile:
            await self.client.inbox.put(self.client.receive(self.meanwhile.pop(0)))

    async def _answer(self, data: bytes) -> None:
        self.answers.append(data)

    def response(
        self,
        type_url: str,
        *entries: Entry,
        removed: tuple[str, ...] = (),
        any_type: str = "",
        word: Word = Word.NONE,
    ) -> bytes:
        self._nonces += 1
        response = pb.DeltaDiscoveryResponse(
            type_url=type_url,
            nonce=str(self._nonces),
            removed_resources=removed,
            system_version_info=word.value,
        )
        for each in entries:
            resource = response.resources.add(name=each.name, version="1")
            resource.resource.type_url = any_type or type_url
            resource.resource.value = each.body
        return response.SerializeToString()

    def receive(self, type_url: str, *entries: Entry, **rest: Any) -> pb.DeltaDiscoveryRequest:
        data = self.response(type_url, *entries, **rest)
        asyncio.run(self.client._take(self.client.receive(data), self._answer))
        return pb.DeltaDiscoveryRequest.FromString(self.answers[-1])

    @property
    def told(self) -> list[tuple[Op, str]]:
        return [(each.op, each.name) for batch in self.published for each in batch]


WEB = pod("web", "10.0.0.2")
POLICY = Policy("p", "shop", PolicyScope.NAMESPACE, Action.ALLOW, (Rule(),))


def test_who_we_say_we_are() -> None:
    wire = node_info(CONFIG).to_wire()
    assert wire.id == "ztunnel~127.0.0.1~ztunnel.istio-system~istio-system.svc.cluster.local"
    assert wire.metadata["NODE_NAME"] == "n1"


def test_both_types_make_a_snapshot() -> None:
    bench = Bench()
    assert not bench.receive(ADDRESS_TYPE, entry(WEB)).HasField("error_detail")
    assert not bench.state.synced
    bench.receive(AUTHORIZATION_TYPE)
    assert bench.state.synced
    assert bench.told == [(Op.ADDRESS, WEB.uid), (Op.SNAPSHOT, "")]
    bench.receive(ADDRESS_TYPE)
    assert bench.told.count((Op.SNAPSHOT, "")) == 1


def test_a_bad_resource_is_refused_by_name_and_the_rest_is_in_force() -> None:
    bench = Bench()
    answer = bench.receive(ADDRESS_TYPE, Entry(Op.ADDRESS, "bad", b"\xff"), entry(WEB))
    assert "bad" in answer.error_detail.message
    assert WEB.uid not in answer.error_detail.message
    assert bench.told == [(Op.ADDRESS, WEB.uid)]
    assert bench.state.workload(WEB.uid) == WEB


def test_a_bad_policy_reaches_the_workers_as_a_denial() -> None:
    bench = Bench()
    answer = bench.receive(AUTHORIZATION_TYPE, Entry(Op.POLICY, "shop/p", b"\xff"))
    assert "shop/p" in answer.error_detail.message
    assert bench.told == [(Op.REJECTED_POLICY, "shop/p")]
    worker = State()
    worker.apply(bench.published[0])
    assert [each.action for each in worker.policies_for(WEB)] == [Action.DENY]


def test_a_policy_of_a_wrong_type_is_a_denial_too() -> None:
    bench = Bench()
    bench.receive(AUTHORIZATION_TYPE, entry(POLICY), any_type="type.googleapis.com/other")
    assert bench.told == [(Op.REJECTED_POLICY, "shop/p")]
    assert [each.action for each in bench.state.policies_for(WEB)] == [Action.DENY]


def test_removals_come_after_additions() -> None:
    bench = Bench()
    bench.receive(ADDRESS_TYPE, entry(WEB))
    new = pod("new", "10.0.0.2")
    bench.receive(ADDRESS_TYPE, entry(new), removed=(WEB.uid,))
    assert bench.told[1:] == [(Op.ADDRESS, new.uid), (Op.REMOVE_ADDRESS, WEB.uid)]
    assert bench.state.workload(new.uid) == new
    assert not bench.state.has(WEB.uid)


def test_a_large_update_goes_in_slices() -> None:
    bench = Bench()
    many = [entry(service(f"s{number}")) for number in range(300)]
    bench.receive(ADDRESS_TYPE, *many)
    assert sum(len(batch) for batch in bench.published) == 300
    assert max(len(batch) for batch in bench.published) == STEP_ENTRIES


def test_policies_do_not_wait_behind_many_addresses() -> None:
    bench = Bench()
    bench.receive(AUTHORIZATION_TYPE)
    bench.meanwhile = [bench.response(AUTHORIZATION_TYPE, entry(POLICY))]
    last = bench.receive(
        ADDRESS_TYPE, *(entry(service(f"s{number}")) for number in range(3 * STEP_ENTRIES))
    )
    assert bench.told.index((Op.POLICY, "shop/p")) == STEP_ENTRIES
    answered = [pb.DeltaDiscoveryRequest.FromString(each).response_nonce for each in bench.answers]
    assert answered[1:] == ["2", "3"]
    assert last.type_url == ADDRESS_TYPE


def test_a_removed_policy_waits_for_the_addresses_that_may_replace_it() -> None:
    bench = Bench()
    bench.receive(AUTHORIZATION_TYPE, entry(POLICY))
    removal = bench.response(AUTHORIZATION_TYPE, removed=("shop/p",))
    later = bench.response(AUTHORIZATION_TYPE, entry(replace(POLICY, action=Action.DENY)))
    bench.meanwhile = [removal, later]
    bench.receive(
        ADDRESS_TYPE, *(entry(service(f"s{number}")) for number in range(3 * STEP_ENTRIES))
    )
    assert Op.REMOVE_POLICY not in {op for op, _ in bench.told}
    assert bench.client.inbox.urgent() is None
    first = asyncio.run(bench.client.inbox.next())
    assert first.removed == ("shop/p",)
    assert bench.client.inbox.urgent() is not None  # it is now the first policy


def synced() -> Bench:
    bench = Bench()
    bench.receive(ADDRESS_TYPE, entry(WEB), word=Word.MORE)
    bench.receive(AUTHORIZATION_TYPE, entry(POLICY), word=Word.WHOLE)
    bench.published.clear()
    return bench


def test_workers_hear_when_an_update_is_whole() -> None:
    bench = synced()
    bench.receive(AUTHORIZATION_TYPE, entry(replace(POLICY, rules=())), word=Word.MORE)
    bench.receive(ADDRESS_TYPE, entry(pod("more", "10.0.0.3")), word=Word.WHOLE)
    assert bench.told[0] == (Op.POLICY, "shop/p")
    assert [op for op, _ in bench.told] == [Op.POLICY, Op.ADDRESS, Op.SNAPSHOT]
    bench.receive(ADDRESS_TYPE, entry(pod("third", "10.0.0.4")), word=Word.WHOLE)
    assert bench.told[-1][0] is Op.ADDRESS, "it had nothing to do with policy"


def test_policies_that_overtook_addresses_are_whole_with_them() -> None:
    bench = synced()
    moved = entry(replace(POLICY, scope=PolicyScope.WORKLOAD_SELECTOR))
    bench.meanwhile = [bench.response(AUTHORIZATION_TYPE, moved, word=Word.WHOLE)]
    many = [entry(service(f"s{number}")) for number in range(3 * STEP_ENTRIES)]
    # Numbered in the order of reading: this one came first.
    data = bench.response(ADDRESS_TYPE, *many, word=Word.MORE)
    asyncio.run(bench.client._take(bench.client.receive(data), bench._answer))
    told = [op for op, _ in bench.told]
    assert told.index(Op.POLICY) == STEP_ENTRIES
    assert told.count(Op.SNAPSHOT) == 1
    assert told[-1] is Op.SNAPSHOT


def test_without_a_word_time_decides() -> None:
    bench = synced()
    bench.client._settling = Settling(TYPES, apart_s=0.01)
    for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE):
        bench.receive(url)
    bench.receive(AUTHORIZATION_TYPE, removed=("shop/p",))
    assert bench.told == [(Op.REMOVE_POLICY, "shop/p")]
    assert not bench.state.settled

    async def scenario() -> None:
        async with asyncio.timeout(5):
            while not bench.state.settled:
                await bench.client._wait(bench.client.inbox, bench._answer)

    asyncio.run(scenario())
    assert bench.told[-1] == (Op.SNAPSHOT, "")


class Slow(Bench):
    """A bench where the kernel must know before the workers do."""

    async def _publish(self, entries: list[Entry]) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        await super()._publish(entries)


class Ended:
    """A stream with one response."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    async def read(self) -> object:
        return self._left.pop() if self._left else grpc.aio.EOF


def test_what_was_read_before_the_stream_ended_is_worked_off_whole() -> None:
    """Half way it would be in the state, and not with the workers."""
    bench = Slow()
    stream = Ended(bench.response(AUTHORIZATION_TYPE, entry(POLICY)))

    async def scenario() -> None:
        inbox = bench.client.inbox
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bench.client._read(stream, inbox))
            await bench.client._take(await inbox.next(), bench._answer)
            assert bench.told == [(Op.POLICY, "shop/p")]
            with pytest.raises(XdsEnded):
                await inbox.next()

    asyncio.run(scenario())


class Away(XdsClient):
    """Never reaches a control plane, and notes when it has tried."""

    tries_s: tuple[float, ...] = ()

    async def _stream(self) -> None:
        self.tries_s += (asyncio.get_running_loop().time(),)
        raise XdsEnded("away")


def test_a_control_plane_that_is_back_is_not_kept_waiting_by_a_pause() -> None:
    bench = Bench()
    client = Away(CONFIG, bench.state, bench._publish)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            await asyncio.sleep(1000)  # pauses are long by now
            before = len(client.tries_s)
            client.hurry()
            await asyncio.sleep(0.01)
            assert len(client.tries_s) == before + 1
            await asyncio.sleep(0.7 * BACKOFF_MAX_S)
            assert len(client.tries_s) == before + 1, "once, and the pauses stay as they were"
            client.status.connected = True
            client.hurry()
            assert not client._hurried.is_set(), "there is nothing to hurry for"
            running.cancel()

    run_virtual(scenario())


def test_tries_at_a_start_without_a_control_plane_are_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    client = Away(CONFIG, bench.state, bench._publish)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            await asyncio.sleep(5.0)
            running.cancel()

    with caplog.at_level(logging.WARNING, "xds"):
        run_virtual(scenario())
    assert len(client.tries_s) > 5
    assert [each.getMessage() for each in caplog.records] == ["xds.disconnected"]


def test_messages_are_counted() -> None:
    bench = Bench()
    bench.receive(ADDRESS_TYPE, entry(WEB))
    assert bench.client.status.messages[ADDRESS_TYPE] == 1
    assert bench.client.status.message_bytes[ADDRESS_TYPE] > 20


def test_two_types_may_share_a_nonce() -> None:
    """A nonce is one of its type: a server that counts states has the same for both."""
    bench = Bench()
    both = []
    for type_url, value in ((AUTHORIZATION_TYPE, POLICY), (ADDRESS_TYPE, WEB)):
        bench._nonces = 12
        both.append(bench.client.receive(bench.response(type_url, entry(value))))
    for update in both:
        asyncio.run(bench.client._take(update, bench._answer))
    answers = [pb.DeltaDiscoveryRequest.FromString(each) for each in bench.answers]
    assert [(each.type_url, each.response_nonce) for each in answers] == [
        (AUTHORIZATION_TYPE, "13"),
        (ADDRESS_TYPE, "13"),
    ]


def test_an_error_beside_the_reading_ends_the_stream_after_what_has_come() -> None:
    """A batch that was passed to the state alone would stay unknown to the workers."""

    async def whole() -> None:
        inbox, bench = Inbox(), Bench()
        update = bench.client.receive(bench.response(ADDRESS_TYPE, entry(WEB)))
        await inbox.put(update)

        async def fails() -> None:
            raise XdsEnded("gone")

        await _beside(inbox, fails())
        assert await inbox.next() is update
        with pytest.raises(XdsEnded):
            await inbox.next()

    asyncio.run(whole())
