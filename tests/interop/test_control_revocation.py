"""Node tokens that are revoked while the control plane runs and their streams are open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from control.server.main import main
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE
from tests.support.manifests import pod
from tests.support.peers.delta_client import Stream, open_stream, secure_channel
from tests.support.processes.control import running_control


def client(node: str) -> DeltaClient:
    return DeltaClient(NodeInfo(f"ztunnel~{node}", metadata={"NODE_NAME": node}), (ADDRESS_TYPE,))


async def synced(stream: Stream) -> None:
    await stream.until(lambda s: s.client.synced)


async def refused(stream: Stream) -> None:
    with pytest.raises(EOFError) as caught:
        await stream.until(lambda _: False)
    assert caught.value.args == (grpc.StatusCode.UNAUTHENTICATED,)


def test_a_revoked_token_ends_its_streams_and_opens_none(tmp_path: Path) -> None:
    def command(*words: str) -> str:
        state = str(tmp_path / "state")
        result = CliRunner().invoke(main, ["token", "--state", state, *words])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    async def test() -> None:
        async with (
            running_control(tmp_path) as control,
            secure_channel(control.port, control.root_pem) as channel,
            open_stream(channel, client("n1"), token := command("--node=n1")) as stolen,
            open_stream(channel, client("n2"), command("--node=n2")) as other,
        ):
            await synced(stolen)
            await synced(other)
            command("--node=n1", "--revoke")
            await refused(stolen)
            async with open_stream(channel, client("n1"), token) as again:
                await refused(again)
            async with open_stream(channel, client("n1"), command("--node=n1")) as fresh:
                await synced(fresh)
            (control.manifests / "pod.yaml").write_text(pod())
            await other.until(lambda s: bool(s.resources[ADDRESS_TYPE]))

    asyncio.run(test())
