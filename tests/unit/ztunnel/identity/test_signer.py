"""The client of the certificate service, without one: every failure is a reason to try again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from control.kit.errors import ControlError
from control.wire.channel import TokenUnreadable
from tests.support.certificates import make_authority
from tests.support.engine.meshes import spiffe
from ztunnel.access import RootsUnreadable
from ztunnel.config import ZtunnelConfig
from ztunnel.identity import signer
from ztunnel.identity.csr import make_csr, make_key
from ztunnel.identity.signer import CaClient, SigningFailed

WEB = spiffe("web")
CSR = make_csr(make_key(), WEB)
NOBODY = "127.0.0.1:1"  # nothing listens there
ROOT = make_authority().pem.decode()


def client(folder: Path, *, root: bool = True, token: bool = True, ca: str = NOBODY) -> CaClient:
    if root:
        (folder / "root.pem").write_text(ROOT)
    if token:
        (folder / "token").write_text("t")
    return CaClient(
        ZtunnelConfig(
            NOBODY,
            ca,
            folder / "zds",
            folder,
            ca_root=str(folder / "root.pem"),
            token=folder / "token",
        )
    )


def run(made: CaClient, use: Callable[[CaClient], Awaitable[object]]) -> None:
    async def whole() -> None:
        try:
            await use(made)
        finally:
            await made.close()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("missing", "error"), [("root", RootsUnreadable), ("token", TokenUnreadable)]
)
def test_a_file_that_is_not_there_yet(
    tmp_path: Path, missing: str, error: type[ControlError]
) -> None:
    made = client(tmp_path, **{missing: False})
    with pytest.raises(error):
        run(made, lambda it: it.sign(WEB, CSR, 3600))


def test_a_service_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(SigningFailed, match="UNAVAILABLE"):
        run(client(tmp_path), lambda it: it.sign(WEB, CSR, 3600))


def test_after_a_broken_link_the_next_try_dials_at_once(tmp_path: Path) -> None:
    async def use(made: CaClient) -> None:
        first = await made._current()
        for _ in range(2):
            with pytest.raises(SigningFailed, match="UNAVAILABLE"):
                await made.sign(WEB, CSR, 3600)
            second = await made._current()
            assert second.channel is not first.channel, "gRPC would pause before it dials again"
            assert await made._current() is second
            first = second

    run(client(tmp_path), use)


def test_new_roots_make_a_new_channel_once_the_old_one_is_idle(tmp_path: Path) -> None:
    async def use(made: CaClient) -> None:
        first = await made._current()
        assert await made._current() is first
        first.calls += 1
        (tmp_path / "root.pem").write_bytes(make_authority().pem)
        second = await made._current()
        assert second is not first
        assert second.channel is not first.channel
        first.calls -= 1
        await made._close_if_done(first)  # as the end of its last call does

    run(client(tmp_path), use)


def test_a_link_that_says_nothing_is_left_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica behind it has died without a word; a service name leads to the others."""
    monkeypatch.setattr(signer, "FIRST_TRY_S", 0.2)
    monkeypatch.setattr(signer, "SIGN_TIMEOUT_S", 0.4)
    accepted: list[asyncio.StreamWriter] = []

    async def use() -> None:
        async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer)

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            made = client(tmp_path, ca=f"127.0.0.1:{port}")
            with pytest.raises(SigningFailed, match="DEADLINE_EXCEEDED"):
                await made.sign(WEB, CSR, 3600)
            await made.close()
            for each in accepted:
                each.close()

    asyncio.run(use())
    assert len(accepted) == 2


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    made = client(tmp_path)
    run(made, lambda it: it.close())
