"""The CA's Secret: made once whoever is first, and followed when somebody changes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.trust import Trust
from control.server.ca import stored
from control.server.ca.authority import Authority, new_authority
from control.server.ca.copy import AuthorityCopy
from control.server.ca.records import RotationRecords
from control.server.ca.secret import BadCaSecret, data_of
from control.server.ca.stored import ISTIO_NAME, OWN, StoredAuthority
from tests.support.authorities import CompanyCa, held
from tests.support.clock import FakeClock
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal, too_many

NAMESPACE, CLOCK = "tulle-system", FakeClock()
FORBIDDEN = refusal(403, "Forbidden", 'secrets "cacerts" is forbidden')
DEADLINE_S = 10.0
DAY, LATER_S = timedelta(hours=24), 25 * 3600.0
NOWHERE = Path("/proc/nowhere")  # a disk that takes nothing


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    for name, value in {"LOOK_S": 0.01, "RETRY_S": 0.01, "AWAY_S": 0.0}.items():
        monkeypatch.setattr(stored, name, value)
    with serving() as server:
        server.namespace(NAMESPACE)
        yield server


@asynccontextmanager
async def opened(
    kube: KubeServer, name: str = "", copy: Path = NOWHERE
) -> AsyncIterator[StoredAuthority]:
    async with KubeClient(ClusterAccess(kube.url, Trust())) as client, asyncio.timeout(DEADLINE_S):
        yield stored_in(client, name, copy)


def stored_in(client: KubeClient, name: str, copy: Path) -> StoredAuthority:
    return StoredAuthority(
        client,
        NAMESPACE,
        name,
        "cluster.local",
        CLOCK,
        DAY,
        AuthorityCopy(copy, "here"),
        RotationRecords(client, NAMESPACE),
    )


def first(kube: KubeServer, name: str = "", copy: Path = NOWHERE) -> Authority:
    async def whole() -> Authority:
        async with opened(kube, name, copy) as subject:
            return await subject.first()

    return asyncio.run(whole())


def put(kube: KubeServer, authority: Authority, name: str = OWN) -> None:
    head = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
    metadata = {"name": name, "namespace": NAMESPACE}
    kube.put({**head, "metadata": metadata, "data": data_of(authority)})


def test_it_is_made_once_and_read_by_those_who_come_later(kube: KubeServer) -> None:
    made = first(kube)
    secret = kube.get("v1", "Secret", OWN, NAMESPACE)
    assert secret is not None
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert first(kube) == made


def test_replicas_that_start_together_have_one_ca(kube: KubeServer) -> None:
    async def together() -> list[Authority]:
        kube.fail("GET .*/secrets/tulle-ca", refusal(404, "NotFound", "no"), times=5)
        async with opened(kube) as one, opened(kube) as two, asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(each.first()) for each in (one, two, one, two, one)]
        return [each.result() for each in both]

    made = asyncio.run(together())
    assert all(each == made[0] for each in made)
    assert kube.faults.count("POST .*/secrets") >= 2


def test_istios_cacerts_comes_before_our_own(kube: KubeServer) -> None:
    ours, theirs = (new_authority("td", CLOCK.now()) for _ in range(2))
    put(kube, ours)
    put(kube, theirs, ISTIO_NAME)
    assert first(kube) == theirs


def test_a_cacerts_that_may_not_be_seen_is_waited_for_in_words(
    kube: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Another replica may see it: a CA of our own beside it would be a second one."""
    theirs = new_authority("td", CLOCK.now())
    put(kube, theirs, ISTIO_NAME)
    shut = kube.fail("GET .*/secrets/cacerts", FORBIDDEN, times=3)
    assert first(kube) == theirs
    assert shut.hits == 3
    assert kube.get("v1", "Secret", OWN, NAMESPACE) is None
    told = [vars(each) for each in caplog.records if "ca.waiting" in each.getMessage()]
    assert "with --ca-secret" in str(told)


def test_one_that_was_named_is_read_where_cacerts_may_not_be(kube: KubeServer) -> None:
    kube.fail("GET .*/secrets/cacerts", FORBIDDEN)
    given = new_authority("td", CLOCK.now())
    put(kube, given, "company")
    assert first(kube, "company") == given


def test_a_start_without_the_api_server_has_the_ca_of_before(
    kube: KubeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "ca" / "copy.json"
    made = first(kube, copy=copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    with kube.away():
        assert first(kube, copy=copy) == made
    kube.fail("GET .*/secrets/.*", refusal(503, "ServiceUnavailable", "not yet"))
    assert first(kube, copy=copy) == made
    assert "ca.copied" in caplog.text


def test_a_right_that_is_missing_is_no_outage(kube: KubeServer, tmp_path: Path) -> None:
    first(kube, copy=tmp_path / "copy")
    shut = kube.fail("GET .*/secrets/.*", FORBIDDEN, times=5)
    first(kube, copy=tmp_path / "copy")
    assert shut.hits == 5


def test_every_replica_knows_the_old_root_whenever_it_started(kube: KubeServer) -> None:
    """Both run, one starts after the change, and one after a day: each trusts what the other
    signs, and they change over together."""
    before, after = (new_authority("td", CLOCK.now()) for _ in range(2))
    put(kube, before)
    assert first(kube) == before
    put(kube, after)
    for _ in range(2):
        announced = first(kube)
        assert announced.issuer == before.issuer
        assert announced.other_roots == (after.root,)
    CLOCK.pass_s(LATER_S)
    for _ in range(2):
        changed = first(kube)
        assert changed.issuer == after.issuer
        assert changed.other_roots == (before.root,)
    CLOCK.pass_s(LATER_S)
    assert first(kube) == after


def test_a_mesh_that_leaves_signs_on_and_the_next_need_not_wait(kube: KubeServer) -> None:
    before, after = (new_authority("td", CLOCK.now()) for _ in range(2))
    put(kube, before)
    first(kube)
    put(kube, after)
    reads = "GET .*/secrets/tulle-ca-rotation"

    async def leave() -> None:
        async with opened(kube) as subject, asyncio.TaskGroup() as tasks:
            subject.is_leaving = True
            found = await subject.first()
            assert found.issuer == before.issuer
            authorities = held(found, CLOCK)
            following = tasks.create_task(subject.follow(authorities))
            looks = kube.faults.count(reads)
            while kube.faults.count(reads) < looks + 3:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.005)
            assert authorities.given == found
            following.cancel()

    asyncio.run(leave())
    assert first(kube) == after


def test_without_the_right_to_a_record_a_new_root_signs_at_once(
    kube: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    kube.fail(".*/secrets/tulle-ca-rotation", FORBIDDEN)
    before, after = (new_authority("td", CLOCK.now()) for _ in range(2))
    put(kube, before)
    assert first(kube) == before
    put(kube, after)
    assert first(kube) == after
    assert "ca.no_record" in caplog.text


def test_a_secret_that_was_named_is_waited_for_and_never_made(kube: KubeServer) -> None:
    given = new_authority("td", CLOCK.now())

    async def whole() -> Authority:
        async with opened(kube, "company") as subject, asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(subject.first())
            while kube.faults.count("GET .*/secrets/company") < 3:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.005)
            put(kube, given, "company")
        return waiting.result()

    assert asyncio.run(whole()) == given
    assert kube.get("v1", "Secret", OWN, NAMESPACE) is None


def test_a_busy_or_absent_api_server_is_waited_for(kube: KubeServer) -> None:
    kube.fail("GET .*", too_many(1), times=2)
    kube.fail("POST .*", cut=True, is_done=True, times=1)
    made = first(kube)
    assert first(kube) == made


def test_a_ca_that_could_not_serve_is_told_at_once(kube: KubeServer) -> None:
    leaf = CompanyCa("leaf", CLOCK.now(), is_ca=False)
    put(kube, Authority(leaf.key, leaf.certificate))
    with pytest.raises(BadCaSecret, match=r'tulle-ca: tls.crt: "CN=leaf"'):
        first(kube)


def test_a_change_is_taken_and_a_bad_one_is_told_once(
    kube: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ca")
    before, after = (new_authority("td", CLOCK.now()) for _ in range(2))
    bad = CompanyCa("leaf", CLOCK.now(), is_ca=False)
    put(kube, before)

    async def whole() -> None:
        async with opened(kube) as subject, asyncio.TaskGroup() as tasks:
            authorities = held(await subject.first(), CLOCK)
            following = tasks.create_task(subject.follow(authorities))
            put(kube, Authority(bad.key, bad.certificate))
            looks = kube.faults.count("GET .*")
            while kube.faults.count("GET .*") < looks + 4:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.005)
            assert authorities.given == before
            put(kube, after)
            while authorities.given.root == before.root:
                if after.root in authorities.given.other_roots:
                    CLOCK.pass_s(LATER_S)
                await asyncio.sleep(0.005)
            assert authorities.given == replace(after, other_roots=(before.root,))
            following.cancel()

    asyncio.run(whole())
    told = [each.getMessage() for each in caplog.records]
    assert sum("ca.not_followed" in each for each in told) == 1
    assert any("ca.announced" in each for each in told)
    assert any("ca.replaced" in each for each in told)


def test_a_cacerts_that_comes_later_is_taken_by_replicas_that_run(kube: KubeServer) -> None:
    theirs = new_authority("td", CLOCK.now())

    async def whole() -> None:
        async with opened(kube) as subject, asyncio.TaskGroup() as tasks:
            authorities = held(await subject.first(), CLOCK)
            following = tasks.create_task(subject.follow(authorities))
            put(kube, theirs, ISTIO_NAME)
            while theirs.root not in authorities.given.other_roots:  # noqa: ASYNC110 no event
                await asyncio.sleep(0.005)
            following.cancel()

    asyncio.run(whole())


def test_our_own_secret_is_put_back_when_it_is_deleted(kube: KubeServer) -> None:
    async def whole() -> Authority:
        async with opened(kube) as subject, asyncio.TaskGroup() as tasks:
            authorities = held(await subject.first(), CLOCK)
            following = tasks.create_task(subject.follow(authorities))
            kube.remove("v1", "Secret", OWN, NAMESPACE)
            while kube.get("v1", "Secret", OWN, NAMESPACE) is None:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.005)
            following.cancel()
        return authorities.given

    assert first(kube) == asyncio.run(whole())
