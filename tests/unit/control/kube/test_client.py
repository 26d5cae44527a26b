"""The client against recorded answers, byte by byte."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.kit.clock import SystemClock
from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.credentials import Proof, TokenFile
from control.kube.errors import ApiError, TooLargeAnswer, Unreachable, UnreadableAnswer
from control.kube.lines import Lines
from control.kube.resources import CONFIG_MAPS
from control.kube.trust import Pem, Trust
from control.server.ca.keys import load_authority
from control.server.ports import ServingCertificates, TlsContexts
from tests.support.authorities import held
from tests.unit.control.kube.replay import EMPTY, Answer, Replay, plain, recorded, replay

PATH = CONFIG_MAPS.path("vec")
Plain = dict[str, Any]


def with_client(
    body: Callable[[KubeClient, Replay], Coroutine[Any, Any, None]], *answers: Answer
) -> Replay:
    async def main() -> Replay:
        async with replay(*answers) as bench, KubeClient(plain(bench)) as client:
            await body(client, bench)
            return bench

    return asyncio.run(main())


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]


def test_a_page_is_decoded_into_the_type_that_was_asked_for() -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        page = await client.get(PATH, _Page, {"limit": "3", "continue": "a+/="})
        assert len(page.items) == 3

    bench = with_client(body, recorded("list-page-1"))
    first, headers, _ = bench.requests[0]
    assert first == "GET /api/v1/namespaces/vec/configmaps?limit=3&continue=a%2B/%3D HTTP/1.1"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("tulle/")


def test_each_call_has_its_method_content_and_parameters() -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        where = CONFIG_MAPS.path("vec", "a")
        await client.create(PATH, {"a": 1}, Plain)
        await client.put(where, {"a": 2}, Plain)
        await client.merge(where, {"a": 3}, Plain)
        await client.apply(where, {"a": 4}, Plain, manager="tulle", force=True)
        await client.delete(where, uid="u-1", propagation="Foreground")

    bench = with_client(body)
    seen = [(first.split(), headers["content-type"]) for first, headers, _ in bench.requests]
    assert [(each[0][0], each[1]) for each in seen] == [
        ("POST", "application/json"),
        ("PUT", "application/json"),
        ("PATCH", "application/merge-patch+json"),
        ("PATCH", "application/apply-patch+yaml"),
        ("DELETE", "application/json"),
    ]
    assert seen[3][0][1].endswith("?fieldManager=tulle&force=true")
    assert json.loads(bench.requests[4][2])["preconditions"] == {"uid": "u-1"}


@pytest.mark.parametrize(("name", "code"), [("too-many-429", 429), ("forbidden-403", 403)])
def test_a_refusal_is_an_error_with_its_place(name: str, code: int) -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        with pytest.raises(ApiError, match=f"GET {PATH}: {code}") as caught:
            await client.get(PATH, Plain)
        assert caught.value.code == code

    with_client(body, recorded(name))


def test_a_watch_gives_its_lines_as_they_come() -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        lines, found = Lines(), []
        async with client.watch(PATH, {"watch": "true"}, lambda: 5.0) as chunks:
            async for chunk in chunks:
                found += lines.feed(chunk)
        kinds = [msgspec.json.decode(each)["type"] for each in found]
        assert kinds == ["ADDED"] * 7 + ["BOOKMARK", "ADDED", "BOOKMARK"]

    with_client(body, recorded("watchlist"))


def test_silence_in_a_watch_ends_it() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    async def body(client: KubeClient, bench: Replay) -> None:
        async with client.watch(PATH, {}, lambda: 0.05) as chunks:
            with pytest.raises(Unreachable, match="silent"):
                await anext(chunks)

    with_client(body, silent)


def test_the_longest_silence_may_change_while_it_lasts() -> None:
    longest_s = [30.0]

    async def stops(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    async def body(client: KubeClient, bench: Replay) -> None:
        async with client.watch(PATH, {}, lambda: longest_s[0]) as chunks:
            assert await anext(chunks) == b"a"
            longest_s[0] = 0.05
            with pytest.raises(Unreachable, match="silent"):
                await anext(chunks)

    with_client(body, stops)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_server_that_breaks_off_is_unreachable(answer: bytes) -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        with pytest.raises(Unreachable, match=f"GET {PATH}: [^<]*$"):
            await client.get(PATH, Plain)

    # An idle connection that was closed is dialled once more by itself.
    with_client(body, answer, answer)


def test_nobody_there_is_unreachable_and_names_the_server() -> None:
    async def main() -> None:
        async with replay() as bench:
            access = plain(bench)
        async with KubeClient(access) as client:
            with pytest.raises(Unreachable, match=str(bench.port)):
                await client.get(PATH, Plain)

    asyncio.run(main())


def test_an_answer_of_another_shape_is_an_error() -> None:
    async def body(client: KubeClient, bench: Replay) -> None:
        with pytest.raises(UnreadableAnswer):
            await client.get(PATH, _Page)

    with_client(body)


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    async def main() -> None:
        async with (
            replay(recorded("list-page-1")) as bench,
            KubeClient(plain(bench), body_bytes_max=16) as client,
        ):
            with pytest.raises(TooLargeAnswer):
                await client.get(PATH, Plain)

    asyncio.run(main())


class _Renewed:
    """Credentials that are renewed when the server did not accept them."""

    def __init__(self) -> None:
        self.count = 1

    async def proof(self) -> Proof:
        return Proof(f"Bearer {self.count}")

    def refused(self) -> None:
        self.count += 1


def test_renewed_credentials_are_tried_once_and_old_ones_never_twice(tmp_path: Path) -> None:
    async def main() -> None:
        refusal = recorded("unauthorized-401")
        async with replay(refusal, EMPTY, refusal, refusal, refusal) as bench:
            async with KubeClient(replace(plain(bench), credentials=_Renewed())) as client:
                assert await client.get(PATH, Plain) == {}
                with pytest.raises(ApiError, match="401"):
                    await client.get(PATH, Plain)
            (tmp_path / "token").write_text("same")
            same = replace(plain(bench), credentials=TokenFile(tmp_path / "token"))
            async with KubeClient(same) as client:
                with pytest.raises(ApiError, match="401"):
                    await client.get(PATH, Plain)
        shown = [headers["authorization"] for _, headers, _ in bench.requests]
        assert shown == ["Bearer 1", "Bearer 2", "Bearer 2", "Bearer 3", "Bearer same"]

    asyncio.run(main())


def test_tls_is_verified_by_the_name_in_the_kubeconfig(tmp_path: Path) -> None:
    authority = load_authority(tmp_path, "td", SystemClock())
    serving = ServingCertificates(held(authority, SystemClock()), ["kubernetes"], SystemClock())
    root = Pem(path=tmp_path / "root-cert.pem")

    async def main() -> None:
        tls = TlsContexts(serving).current()
        assert isinstance(tls, ssl.SSLContext)
        async with replay(EMPTY, EMPTY, tls=tls) as bench:
            url = f"https://127.0.0.1:{bench.port}"
            async with KubeClient(
                ClusterAccess(url, Trust(root, server_name="kubernetes"))
            ) as client:
                assert await client.get(PATH, Plain) == {}
            for trust in (Trust(root, server_name="other"), Trust()):
                async with KubeClient(ClusterAccess(url, trust)) as client:
                    with pytest.raises(Unreachable, match=r"certificate"):
                        await client.get(PATH, Plain)

    asyncio.run(main())
