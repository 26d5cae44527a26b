"""A reflector and the small API server: all objects, whatever happens on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from control.kit.backoff import Backoff
from control.kit.clock import SystemClock
from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.reflection import Name, Phase, Reflection
from control.kube.reflector import Reflector
from control.kube.resources import PODS
from control.kube.trust import Trust
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal
from tests.unit.control.kube.replay import plain, replay

DEADLINE_S, LOOK_S = 20.0, 0.01
LISTS, WATCHES = "GET /api/v1/pods", "WATCH /api/v1/pods"


class Kept:
    """A sink of versions by name."""

    def __init__(self) -> None:
        self.found: dict[Name, str] = {}
        self.puts = 0

    def put(self, item: bytes) -> Name | None:
        self.puts += 1
        meta = msgspec.json.decode(item)["metadata"]
        name = (meta["namespace"], meta["name"])
        self.found[name] = meta["resourceVersion"]
        return name

    def gone(self, item: bytes) -> None:
        meta = msgspec.json.decode(item)["metadata"]
        self.found.pop((meta["namespace"], meta["name"]), None)

    def keep(self, names: AbstractSet[Name]) -> int:
        gone = [each for each in self.found if each not in names]
        for each in gone:
            del self.found[each]
        return len(gone)


class Bench:
    def __init__(
        self, api: KubeServer, sink: Kept, reflector: Reflector, news: asyncio.Event
    ) -> None:
        self.api, self.sink, self.reflector, self.news = api, sink, reflector, news

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                with suppress(TimeoutError):  # not all of it is the reflector's news
                    async with asyncio.timeout(LOOK_S):
                        await self.news.wait()
                self.news.clear()

    async def same(self) -> None:
        """Until the sink has what the server has."""
        await self.until(lambda: self.reflector.state.is_synced and self.sink.found == self.there())

    def there(self) -> dict[Name, str]:
        with self.api.lock:
            return {
                (each["metadata"]["namespace"], each["metadata"]["name"]): each["metadata"][
                    "resourceVersion"
                ]
                for each in self.api.store.objects.values()
                if each["kind"] == "Pod"
            }


def put(api: KubeServer, name: str, label: str = "a") -> None:
    metadata = {"name": name, "namespace": "default", "labels": {"v": label}}
    spec = {"containers": [{"name": "a", "image": "a"}]}
    api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        for number in range(7):
            put(server, f"p{number}")
        yield server


@asynccontextmanager
async def following(api: KubeServer, page: int = 500) -> AsyncIterator[Bench]:
    state = Reflection(backoff=Backoff(0.01, 0.05), random=random.Random(1))
    state.page_max = page
    sink = Kept()
    async with (
        KubeClient(ClusterAccess(api.url, Trust())) as client,
        asyncio.TaskGroup() as tasks,
    ):
        news = asyncio.Event()
        reflector = Reflector(
            client, [PODS.path()], sink, SystemClock(), reflection=state, changed=news.set
        )
        running = tasks.create_task(reflector.run(), name="reflector")
        try:
            yield Bench(api, sink, reflector, news)
        finally:
            running.cancel()


@pytest.mark.parametrize("has_watch_lists", [True, False])
def test_what_is_there_and_what_comes_is_followed(api: KubeServer, has_watch_lists: bool) -> None:
    api.api.has_watch_lists = has_watch_lists

    async def main() -> None:
        async with following(api, page=3) as bench:
            await bench.same()
            assert api.faults.count(LISTS) == (0 if has_watch_lists else 3)
            put(api, "new")
            put(api, "p1", "b")
            api.remove("v1", "Pod", "p2", "default")
            await bench.same()
            assert len(bench.sink.found) == 7
            assert bench.sink.puts == 9

    asyncio.run(main())


def test_objects_that_went_while_nobody_looked_are_gone(api: KubeServer) -> None:
    async def main() -> None:
        async with following(api) as bench:
            await bench.same()
            with api.away():
                api.remove("v1", "Pod", "p2", "default")
                put(api, "new")
                api.compact()
                await bench.until(lambda: bench.reflector.state.failures > 1)
                assert len(bench.sink.found) == 7, "what is known stays"
            await bench.same()
            assert bench.reflector.state.trouble is None

    asyncio.run(main())


def test_a_connection_that_is_cut_goes_on_where_it_was(api: KubeServer) -> None:
    async def main() -> None:
        async with following(api) as bench:
            await bench.same()
            api.drop_connections()
            put(api, "new")
            await bench.same()
            assert bench.reflector.state.passes == 1
            assert bench.sink.puts == 8, "only what is new was sent"

    asyncio.run(main())


def test_a_list_that_expires_between_its_pages_is_whole_in_the_end(api: KubeServer) -> None:
    api.api.has_watch_lists = False
    slow = api.fail(LISTS, after_s=0.05)

    async def main() -> None:
        async with following(api, page=2) as bench:
            await bench.until(lambda: api.faults.count(LISTS) >= 2)
            api.remove("v1", "Pod", "p0", "default")
            put(api, "new")
            api.compact()
            slow.after_s = 0.0
            await bench.same()
            assert ("default", "p0") not in bench.sink.found

    asyncio.run(main())


def test_a_server_that_was_set_back_is_listed_anew(api: KubeServer) -> None:
    """It knows nothing of our version: it answers 200, and is silent."""

    async def main() -> None:
        async with following(api) as bench:
            await bench.same()
            state = bench.reflector.state
            with api.away():
                state.version, state.follow_silence_s = "99999999", 0.1
                put(api, "new")
            await bench.until(lambda: state.passes > 1)
            await bench.same()
            assert int(state.version) < 99999999

    asyncio.run(main())


def test_a_server_that_passes_over_what_it_does_not_know_is_listed_by_pages(
    api: KubeServer,
) -> None:
    """An old one, or a proxy: the watch begins, and no mark comes."""
    api.fail(WATCHES, silent=True, times=1)

    async def main() -> None:
        async with following(api) as bench:
            bench.reflector.state.begin_silence_s = 0.1
            await bench.same()

    asyncio.run(main())


def test_it_waits_as_long_as_the_server_says(api: KubeServer) -> None:
    busy = refusal(429, "TooManyRequests", "later", retryAfterSeconds=1)
    api.fail(WATCHES, busy, times=1)

    async def main() -> None:
        async with following(api) as bench:
            started_s = SystemClock().monotonic_s()
            await bench.same()
            assert SystemClock().monotonic_s() - started_s >= 1.0
            assert api.faults.count(WATCHES) == 2

    asyncio.run(main())


def test_a_refusal_of_the_kind_is_trouble_and_its_end_is_noticed(api: KubeServer) -> None:
    fault = api.fail(".* /api/v1/pods", refusal(403, "Forbidden", "pods is forbidden"))

    async def main() -> None:
        async with following(api) as bench:
            await bench.until(lambda: bench.reflector.state.failures >= 3)
            assert not bench.reflector.state.is_synced
            assert "forbidden" in str(bench.reflector.state.trouble)
            api.faults.active.remove(fault)
            await bench.same()
            assert bench.reflector.state.trouble is None

    asyncio.run(main())


def test_an_object_as_deep_as_an_api_server_takes_them_ends_nobody() -> None:
    """Else one object in a namespace would end every replica, at each start anew."""

    def item(name: str) -> bytes:
        metadata = b'{"name":"%s","namespace":"default","resourceVersion":"7"}' % name.encode()
        return b'{"metadata":%s,"status":%s1%s}' % (metadata, b'{"a":' * 9_990, b"}" * 9_990)

    def answer(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    page = answer(b'{"metadata":{"resourceVersion":"8"},"items":[%s]}' % item("a"))
    watch = answer(b'{"type":"ADDED","object":%s}\n' % item("b"))

    async def main() -> None:
        async with replay(page, watch) as server, KubeClient(plain(server)) as client:
            sink, state = Kept(), Reflection(phase=Phase.PAGES)
            reflector = Reflector(client, [PODS.path()], sink, SystemClock(), reflection=state)
            await reflector.step()
            assert (state.phase, sink.found.keys()) == (Phase.FOLLOW, {("default", "a")})
            await reflector.step()
            assert (state.trouble, len(sink.found)) == (None, 2)

    asyncio.run(main())
