"""Paths that follow from what the operator chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config
from agent.config import AgentConfig
from control.kit.errors import ConfigError


def chosen(**fields: object) -> AgentConfig:
    wanted: dict[str, object] = {
        "node": "n1",
        "control": "control:15010",
        "control_root": Path("/root.pem"),
        "control_name": "control",
        "token": None,
        "zds": Path("/run/tulle/n1/zds.sock"),
        "cgroup_root": Path("/sys/fs/cgroup"),
        **fields,
    }
    return AgentConfig(**wanted)  # type: ignore[arg-type]  # test shorthand


def test_each_node_has_a_folder_a_pin_root_and_a_socket_of_its_own() -> None:
    one = chosen(run_dir=Path("/r"), bpffs=Path("/b"))
    assert one.folder == config.node_folder(Path("/r"), "n1") == Path("/r/n1")
    assert one.pin_root == config.pin_root(Path("/b"), "n1") == Path("/b/tulle/n1")
    assert one.direct_socket == Path("/r/n1/direct.sock")


def test_two_nodes_of_one_host_share_nothing() -> None:
    one, other = chosen(), chosen(node="n2")
    assert one.folder != other.folder
    assert one.pin_root != other.pin_root


def test_the_defaults_are_the_ones_of_the_documents() -> None:
    one = chosen()
    assert one.folder == Path("/run/tulle/n1")
    assert one.pin_root == Path("/sys/fs/bpf/tulle/n1")
    assert one.metrics.startswith("127.0.0.1:"), "not for the network unless somebody says so"
    assert one.direct
    assert one.shortcut


def test_a_name_with_dots_is_a_folder_of_a_bpffs() -> None:
    """There a dot in a name is refused; a node of EKS is called so."""
    name = "ip-10-0-1-2.ec2.internal"
    root = config.pin_root(Path("/sys/fs/bpf"), name)
    assert root == Path("/sys/fs/bpf/tulle/ip-10-0-1-2=2eec2=2einternal")
    assert config.node_folder(Path("/r"), name).name == name


@pytest.mark.parametrize(
    ("address", "name"),
    [("control:15012", "control"), ("10.0.0.1:15012", "10.0.0.1"), ("[fd00::1]:15012", "fd00::1")],
)
def test_the_default_name_is_the_host(address: str, name: str) -> None:
    assert config.host_of(address) == name


@pytest.mark.parametrize("address", ["", "control", ":15012", "control:", "control:https"])
def test_an_address_needs_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        config.host_of(address)
