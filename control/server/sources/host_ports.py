"""Ports of a node that lead to a pod (`hostPort`), as the pod's object tells them."""

from __future__ import annotations

from control.model.address import Address, parse_address
from control.server.sources.objects import HostPort
from control.server.sources.reader import Reader

_ANY = {"": (4, 16), "0.0.0.0": (4,), "::": (16,)}  # hostIP → lengths of the node's addresses


def read_host_ports(spec: Reader, status: Reader) -> tuple[HostPort, ...]:
    """None for a pod on the host's network, whose ports are the node's own. Only TCP counts."""
    if spec.flag("hostNetwork"):
        return ()
    containers = spec.children("containers")
    containers += (
        each for each in spec.children("initContainers") if each.text("restartPolicy") == "Always"
    )
    found: list[HostPort] = []
    for container in containers:
        for port in container.children("ports"):
            number, target = port.number("hostPort"), port.port("containerPort")
            if not number or target is None or port.text("protocol") not in ("", "TCP"):
                continue
            port.port("hostPort")  # out of range: refused
            found += (HostPort(each, number, target) for each in _addresses(port, status))
    return tuple(dict.fromkeys(found))


def _addresses(port: Reader, status: Reader) -> list[Address]:
    """Addresses of the node alone: whoever makes a pod may write any other as its hostIP."""
    said, found = port.text("hostIP"), _of_node(status)
    if said in _ANY:
        return [each for each in found if len(each) in _ANY[said]]
    wanted = _parsed(port, "hostIP", said)
    return [each for each in found if each == wanted]


def _of_node(status: Reader) -> list[Address]:
    """Empty until a kubelet has taken the pod."""
    found = [_parsed(each, "ip", each.text("ip")) for each in status.children("hostIPs")]
    if not found and status.text("hostIP"):
        found = [_parsed(status, "hostIP", status.text("hostIP"))]
    return found


def _parsed(reader: Reader, key: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as exc:
        raise reader.invalid(key, f"{text!r} is not an IP address") from exc
