"""The whole process, with a shell for an Envoy and a signer that answers when it is told to."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from cryptography import x509

from control.kit.clock import SystemClock
from control.model.identity import SpiffeId
from tests.support.engine.meshes import spiffe
from tests.unit.ztunnel.identity.certs_rig import Authority
from tests.unit.ztunnel.waypoint.grpc_fakes import until
from tests.unit.ztunnel.waypoint.test_relay import GATEWAY
from ztunnel.identity import certs
from ztunnel.identity.signer import SigningFailed
from ztunnel.waypoint import waypoint as waypoint_module
from ztunnel.waypoint.config import WaypointConfig
from ztunnel.waypoint.waypoint import WaypointProcess, socket_folder

WAYPOINT = spiffe("waypoint")
CA = Authority()


class Signer:
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        await self.gate.wait()
        key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        return CA.chain(key, str(identity), start=SystemClock().now())

    def reconnect(self) -> None:
        pass

    async def close(self) -> None:
        pass


def config(folder: Path) -> WaypointConfig:
    envoy = folder / "envoy"
    envoy.write_text(f"#!/bin/sh\ntouch {folder}/started\nexec sleep 60\n")
    envoy.chmod(0o755)
    return WaypointConfig(
        gateway=GATEWAY,
        control="127.0.0.1:1",
        envoy=envoy,
        identity=WAYPOINT,
        pod_name="w",
        run_dir=folder,
        metrics="off",
        readiness="off",
        drain_s=0.1,
    )


def test_envoy_starts_with_the_first_certificate_and_ends_with_us(tmp_path: Path) -> None:
    async def test() -> None:
        signer = Signer()
        waypoint = WaypointProcess(config(tmp_path), SystemClock(), tmp_path, signer)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(waypoint.run())
            await until((tmp_path / "sds").exists)
            assert await waypoint.pending() == ["certificate", "envoy"]
            assert not (tmp_path / "started").exists()
            signer.gate.set()
            await until((tmp_path / "started").exists)
            assert await waypoint.pending() == ["envoy"]
            status = waypoint.status()
            assert status["identity"] == str(WAYPOINT)
            assert status["envoy"] == {"up": True, "starts": 1}
            assert "tulle_waypoint_envoy_up 1.0" in (await waypoint.metrics())[1].decode()
            waypoint.quit()
            assert "draining" in await waypoint.pending()
            await running
        assert waypoint.status()["envoy"] == {"up": False, "starts": 1}

    asyncio.run(test())


def test_the_first_certificate_is_asked_for_without_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETRY_INITIAL_S", "RETRY_MAX_S"):
        monkeypatch.setattr(certs, name, 3600.0)
    monkeypatch.setattr(certs, "WANTED_EVERY_S", 0.01)
    monkeypatch.setattr(waypoint_module, "FIRST_AGAIN_S", 0.01)

    class Failing(Signer):
        tries = 0

        async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
            self.tries += 1
            if self.tries < 3:
                raise SigningFailed("away")
            return await super().sign(identity, csr_pem, ttl_s)

    async def test() -> None:
        signer = Failing()
        signer.gate.set()
        waypoint = WaypointProcess(config(tmp_path), SystemClock(), tmp_path, signer)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(waypoint.run())
            await until((tmp_path / "started").exists)
            waypoint.quit()

    asyncio.run(test())


def test_it_ends_without_a_certificate_too(tmp_path: Path) -> None:
    async def test() -> None:
        waypoint = WaypointProcess(config(tmp_path), SystemClock(), tmp_path, Signer())
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(waypoint.run())
            waypoint.interrupt()

    asyncio.run(test())


def test_a_drain_can_be_cut_short(tmp_path: Path) -> None:
    async def test() -> None:
        settings = dataclasses.replace(config(tmp_path), drain_s=3600.0)
        waypoint = WaypointProcess(settings, SystemClock(), tmp_path, signer := Signer())
        signer.gate.set()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(waypoint.run())
            await until(lambda: waypoint.status()["envoy"]["up"])
            waypoint.interrupt()
            waypoint.interrupt()

    asyncio.run(test())


def test_the_private_folder_goes_with_the_process() -> None:
    with socket_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
