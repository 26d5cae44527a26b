"""A foreign ztunnel's environment, as Istio's reads it; ours reads most of it too."""

from __future__ import annotations

from pathlib import Path

import click.testing
import pytest

from agent.lab import foreign, plan
from ztunnel import main as ztunnel_main
from ztunnel.config import ZtunnelConfig

NODE = plan.node_plan("x", "n2", 2, ("/opt/ztunnel",))
SETTINGS = foreign.environment(
    NODE,
    control="10.70.0.1:15012",
    control_name="tulle-control",
    root=Path("/run/root.pem"),
    folder=Path("/run/n2"),
    workers=2,
)


def test_it_finds_the_control_plane_the_agent_and_itself() -> None:
    assert SETTINGS["XDS_ADDRESS"] == SETTINGS["CA_ADDRESS"] == "https://10.70.0.1:15012"
    assert SETTINGS["XDS_ROOT_CA"] == SETTINGS["CA_ROOT_CA"] == "/run/root.pem"
    assert SETTINGS["ALT_XDS_HOSTNAME"] == SETTINGS["ALT_CA_HOSTNAME"] == "tulle-control"
    assert (SETTINGS["INPOD_UDS"], SETTINGS["AUTH_TOKEN"]) == ("/run/n2/zds.sock", "/run/n2/token")
    assert (SETTINGS["PROXY_MODE"], SETTINGS["NODE_NAME"]) == ("shared", "n2")
    assert SETTINGS["INSTANCE_IP"] == "10.70.2.1"


def test_ours_can_stand_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[ZtunnelConfig] = []
    monkeypatch.setattr(ztunnel_main, "run", found.append)
    done = click.testing.CliRunner().invoke(ztunnel_main.main, [], env=SETTINGS)
    assert done.exit_code == 0, done.output
    (config,) = found
    assert (config.control, config.ca) == ("10.70.0.1:15012", "10.70.0.1:15012")
    assert (config.node, config.zds, config.workers) == ("n2", Path("/run/n2/zds.sock"), 2)
    assert (config.control_name, config.ca_name) == ("tulle-control", "tulle-control")
