"""The admin pages, the metrics page and the ways not to start, on a real process."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests.interop.test_control_xds import WEB, WEB_1, connected, run, synced
from tests.support.processes.control import Control, running_control

REFUSED = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
"""


def test_every_page_tells_its_part(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        (control.manifests / "policy.yaml").write_text(REFUSED)
        await control.logged("mesh.published .*authorization=1")
        async with connected(control) as stream:
            await stream.until(synced)
            await control.logged("xds.acked .*type=Authorization")
            status = await control.admin("/status")
        assert status["objects"]["Pod"] == 3
        assert status["resources"] == {"Address": 6, "Authorization": 1, "Namespace": 2, "Pod": 3}
        assert status["root"]["not_after"] > "2030"
        (node,) = status["nodes"]
        assert (node["node"], node["types"]["Address"]["known"]) == ("n1", 6)
        assert node["types"]["Authorization"]["acked"] != ""
        workloads = {each["uid"]: each for each in await control.admin("/workloads")}
        assert workloads[WEB_1]["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
        assert workloads[WEB_1]["protocol"] == "HBONE"
        assert "web.shop.svc.cluster.local" in {
            each["hostname"] for each in await control.admin("/services")
        }
        (policy,) = await control.admin("/policies")
        assert (policy["delivered"], policy["reason"]) == (True, "UnsupportedValue")
        assert "layer 4 cannot check methods" in policy["notes"][0]
        assert {each["name"] for each in await control.admin("/pods")} == {"web-1", "web-2", "old"}
        config = await control.admin("/config")
        assert config["addresses"][WEB]["service"]["hostname"] == "web.shop.svc.cluster.local"
        assert await control.admin("/problems") == []
        assert (await control.admin("/log?level=loud", "POST"))["reason"] == "bad_level"
        assert (await control.admin("/log?level=info,xds:warning", "POST"))["xds"] == "warning"

    run(test, tmp_path)


def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    async def whole() -> None:
        async with running_control(tmp_path):
            pass
        (tmp_path / "state/ca/ca.pem").chmod(0o644)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "control.server.main", "--listen", "127.0.0.1:0"),
            *("--manifests", str(tmp_path / "manifests"), "--state", str(tmp_path / "state")),
            *("--admin", str(tmp_path / "b.sock"), "--metrics", "127.0.0.1:0"),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(15):
            _, errors = await process.communicate()
        assert process.returncode == 2
        assert b"chmod 600" in errors

    asyncio.run(whole())


def test_several_ports_are_served_alike(tmp_path: Path) -> None:
    async def whole() -> None:
        async with running_control(tmp_path, "--listen", "127.0.0.1:0") as control:
            line = await control.logged(r"control\.started")
            found = re.search(r"ports=\D*(\d+)\D+(\d+)", line)
            assert found is not None, line
            root = (tmp_path / "state/ca/root-cert.pem").read_text()
            for port in map(int, found.groups()):
                await asyncio.to_thread(_handshake, port, root)

    asyncio.run(whole())


def _handshake(port: int, root: str) -> None:
    context = ssl.create_default_context(cadata=root)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        context.wrap_socket(sock, server_hostname="localhost").close()


@pytest.mark.parametrize(
    ("port", "state", "admin", "metrics", "says"),
    [
        ("", "other", "b.sock", "0", "cannot listen on"),
        ("0", "other", "admin.sock", "0", "admin.sock is served by another process"),
        ("0", "other", "b.sock", "", "Address already in use"),
        ("0", "state", "b.sock", "0", "another tulle-control, pid PID, serves "),
        ("", "state", "admin.sock", "", "another tulle-control, pid PID, serves "),
    ],
    ids=["port", "admin socket", "metrics", "state", "all of it"],
)
def test_a_second_one_ends_and_the_first_goes_on(
    tmp_path: Path, port: str, state: str, admin: str, metrics: str, says: str
) -> None:
    async def test(control: Control) -> None:
        before = (tmp_path / "admin.sock").stat().st_ino
        listen = f"127.0.0.1:{port or control.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "control.server.main", "--listen", listen),
            *("--manifests", str(control.manifests), "--state", str(tmp_path / state)),
            *("--admin", str(tmp_path / admin)),
            *("--metrics", f"127.0.0.1:{metrics or control.port}"),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(15):
            _, errors = await process.communicate()
        assert process.returncode == 2
        assert says.replace("PID", str(control.process.pid)) in errors.decode()
        assert (tmp_path / "admin.sock").stat().st_ino == before
        assert (await control.admin("/status"))["objects"]["Pod"] == 3

    run(test, tmp_path)


def folders() -> set[Path]:
    """Folders with the socket of some control plane's gRPC."""
    return set(Path("/run").glob("tulle-control-*"))


def test_a_killed_one_leaves_nothing_that_keeps_the_next_from_starting(tmp_path: Path) -> None:
    async def whole() -> None:
        others = folders()
        async with running_control(tmp_path) as control:
            own = folders() - others
            control.process.kill()
            await control.process.wait()
        async with running_control(tmp_path) as control:
            assert await control.admin("/problems") == []
            assert own
            assert not own & folders()

    asyncio.run(whole())
