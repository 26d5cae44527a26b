"""The supervisor's clients against the real control plane: signing and the delta stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from control.kit.clock import SystemClock
from control.kit.errors import ControlError
from control.model.identity import SpiffeId
from control.wire.channel import TokenUnreadable
from control.wire.sums import WORTH_ENTRIES
from control.wire.types import ADDRESS_TYPE
from tests.bench.scale.mesh import LargeMesh, text
from tests.support.certificates import make_authority
from tests.support.processes.control import Control, running_control
from ztunnel.access import RootsUnreadable
from ztunnel.config import ZtunnelConfig
from ztunnel.identity.csr import check_chain, make_csr, make_key
from ztunnel.identity.signer import CaClient, SigningFailed
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.supervisor.xds import XdsClient

VECTOR = Path(__file__).parents[1] / "vectors/istiod/01-basic.yaml"
WEB = SpiffeId("cluster.local", "shop", "web")
DEADLINE_S = 15.0


def run(
    folder: Path,
    test: Callable[[Control, ZtunnelConfig], Coroutine[Any, Any, None]],
    **changes: Any,
) -> None:
    async def whole() -> None:
        (folder / "manifests").mkdir()
        (folder / "manifests/basic.yaml").write_bytes(VECTOR.read_bytes())
        async with running_control(folder) as control:
            (folder / "root.pem").write_bytes(control.root_pem)
            (folder / "token").write_text(control.token("n1"))
            address = f"127.0.0.1:{control.port}"
            roots = str(folder / "root.pem")
            fields = {"node": "n1", "token": folder / "token", **changes}
            config = ZtunnelConfig(address, address, folder, folder, roots, roots, **fields)
            await test(control, config)

    asyncio.run(whole())


def test_a_certificate_for_a_pod_of_this_node(tmp_path: Path) -> None:
    async def test(control: Control, config: ZtunnelConfig) -> None:
        del control
        client, key = CaClient(config), make_key()
        chain = await client.sign(WEB, make_csr(key, WEB), 3600)
        clock = SystemClock()
        issued = check_chain(WEB, key, chain, clock.now())
        assert (issued.not_after - clock.now()).total_seconds() <= 3600
        stranger = SpiffeId("cluster.local", "shop", "nobody")
        with pytest.raises(SigningFailed):
            await client.sign(stranger, make_csr(key, stranger), 3600)
        foreign = SpiffeId("other.example", "shop", "web")
        with pytest.raises(SigningFailed):
            await client.sign(foreign, make_csr(key, foreign), 3600)
        await client.close()

    run(tmp_path, test)


def test_roots_and_token_are_read_again(tmp_path: Path) -> None:
    async def test(control: Control, config: ZtunnelConfig) -> None:
        client, csr = CaClient(config), make_csr(make_key(), WEB)
        good_root, good_token = control.root_pem, (tmp_path / "token").read_text()

        async def refused() -> ControlError:
            with pytest.raises(ControlError) as found:
                await client.sign(WEB, csr, 3600)
            return found.value

        (tmp_path / "root.pem").unlink()
        assert isinstance(await refused(), RootsUnreadable)
        (tmp_path / "root.pem").write_text("# an empty ConfigMap")
        assert isinstance(await refused(), RootsUnreadable)
        (tmp_path / "root.pem").write_bytes(make_authority().pem)
        assert isinstance(await refused(), SigningFailed)
        (tmp_path / "root.pem").write_bytes(good_root)
        (tmp_path / "token").write_text("nonsense")
        assert isinstance(await refused(), SigningFailed)
        (tmp_path / "token").unlink()
        assert isinstance(await refused(), TokenUnreadable)
        (tmp_path / "token").write_text(good_token)
        assert len(await client.sign(WEB, csr, 3600)) >= 2
        await client.close()

    run(tmp_path, test)


def test_the_stream_fills_the_state_and_survives_a_bad_token(tmp_path: Path) -> None:
    async def test(control: Control, config: ZtunnelConfig) -> None:
        del control
        state, told = State(node="n1", strict=True), list[Entry]()
        synced = asyncio.Event()

        async def publish(entries: list[Entry]) -> None:
            told.extend(entries)
            if entries[-1].op is Op.SNAPSHOT:
                synced.set()

        client = XdsClient(config, state, publish)
        good = (tmp_path / "token").read_text()
        (tmp_path / "token").write_text("nonsense")
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            while True:
                if client.status.error:
                    break
                await asyncio.sleep(0.01)
            assert not state.synced
            (tmp_path / "token").write_text(good)
            await synced.wait()
            running.cancel()
        assert client.status.connected
        assert client.status.terminations.total() >= 1
        copy = State(node="n1")
        copy.apply(told)
        assert copy.counts() == state.counts()
        assert copy.local_workload("shop", "web-1", "web") is not None

    run(tmp_path, test)


def test_a_stream_that_comes_back_with_sums_is_told_what_differs(tmp_path: Path) -> None:
    async def test(control: Control, config: ZtunnelConfig) -> None:
        mesh = LargeMesh(WORTH_ENTRIES, 1)
        made = [*mesh.manifests()]
        manifests, changed = control.manifests / "many.json", asyncio.Event()
        manifests.write_text(text(made))
        await control.logged("mesh.published .*address=")
        state, told = State(node="n1", strict=True), list[Entry]()

        async def publish(entries: list[Entry]) -> None:
            told.extend(entries)
            changed.set()

        client = XdsClient(config, state, publish)

        async def follow(holds: Callable[[], bool]) -> None:
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(client.run())
                while not holds():
                    changed.clear()
                    await changed.wait()
                running.cancel()

        last = f"Kubernetes//Pod/{made[-1]['metadata']['namespace']}/{made[-1]['metadata']['name']}"
        whole = [Entry(Op.SNAPSHOT)]
        await follow(lambda: told[-1:] == whole and state.workload(last) is not None)
        told.clear()
        before = client.status.message_bytes[ADDRESS_TYPE]
        manifests.write_text(text([mesh.pod(0, "v2"), *made[1:-1]]))
        await control.logged("mesh.published .*address=2")
        await follow(lambda: state.workload(last) is None)
        ops = [each.op for each in told if each.op is not Op.SNAPSHOT]
        assert ops == [Op.ADDRESS, Op.REMOVE_ADDRESS]
        assert client.status.message_bytes[ADDRESS_TYPE] - before < 2048

    run(tmp_path, test)
