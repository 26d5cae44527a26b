"""A real CRI-O's answers (1.34.0, runc, a bridge of both families), as our client reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from agent.cni.places import Told, of_cri_status
from agent.cri import runtime_pb2 as pb
from agent.cri.sandboxes import current, parse_list, parse_status
from control.model.address import parse_address

PATH = Path(__file__).parents[3] / "vectors/kubernetes/cri/crio-1.34.json"
RECORDED: dict[str, Any] = json.loads(PATH.read_text())


M = TypeVar("M", bound=Message)


def recorded(name: str, kind: type[M]) -> M:
    return ParseDict(RECORDED[name], kind(), ignore_unknown_fields=True)


def test_a_pod_has_its_namespace_by_name_and_by_process_and_both_addresses() -> None:
    found = parse_status(recorded("PodSandboxStatus web", pb.PodSandboxStatusResponse))
    assert found.paths == (
        "/var/run/netns/4fe8fde3-3379-4837-8f88-c2f4a9415d2d",
        "/proc/18866/ns/net",
    )
    assert found.addresses == (parse_address("10.95.0.5"), parse_address("fd95::2"))
    assert (found.sandbox.uid, found.sandbox.is_ready) == ("uid-web", True)
    assert not found.is_host_network


def test_a_pod_of_the_hosts_network_is_one_though_it_has_a_path() -> None:
    """containerd gives none; CRI-O pins the host's own namespace beside the others."""
    found = parse_status(recorded("PodSandboxStatus sys", pb.PodSandboxStatusResponse))
    assert found.is_host_network
    assert found.paths
    assert found.addresses == ()


def test_the_list_has_both() -> None:
    listed = parse_list(recorded("ListPodSandbox", pb.ListPodSandboxResponse))
    assert sorted(current(listed)) == ["uid-sys", "uid-web"]


def test_its_status_tells_no_folders_of_cni() -> None:
    status = recorded("Status", pb.StatusResponse)
    assert of_cri_status(status.info["config"]) == Told()
