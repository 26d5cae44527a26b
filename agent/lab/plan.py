"""Names and addresses in a lab. Pure: numbers in, names and addresses out.

router–node  10.70.<i>.0/24  fd70:0:<i>::/64   node .1, router .254 (control is i = 0)
pods         10.<70+i>.0.0/16 fd71:<i>::/64    .1.1 and up
services     10.96.… is a pod range too, so 172.20.0.0/16 fd72::/112
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SERVICE_RANGES = ("172.20.0.0/16", "fd72::/112")
NODE_GATEWAY_V6 = "fe80::1"  # the IPv6 next hop of every pod: the node's end of its veth


@dataclass(frozen=True, slots=True)
class AddressPair:
    """An address of each family."""

    v4: str
    v6: str

    @property
    def both(self) -> tuple[str, str]:
        return (self.v4, self.v6)


@dataclass(frozen=True, slots=True)
class NodePlan:
    name: str
    index: int  # from 1
    netns: str
    address: AddressPair
    router: AddressPair
    pods_v4: str
    pods_v6: str
    ztunnel: tuple[str, ...] = ()  # command of a foreign one; empty: ours


def router_netns(lab: str) -> str:
    return f"tl-{lab}-router"


def control_netns(lab: str) -> str:
    return f"tl-{lab}-control"


def pod_netns(lab: str, namespace: str, pod: str) -> str:
    return f"tl-{lab}-{namespace}-{pod}"


def node_plan(lab: str, name: str, index: int, ztunnel: tuple[str, ...] = ()) -> NodePlan:
    return NodePlan(
        name=name,
        index=index,
        netns=f"tl-{lab}-{name}",
        address=uplink(index),
        router=AddressPair(f"10.70.{index}.254", f"fd70:0:{index:x}::fe"),
        pods_v4=f"10.{70 + index}.0.0/16",
        pods_v6=f"fd71:{index:x}::/64",
        ztunnel=ztunnel,
    )


def uplink(index: int) -> AddressPair:
    """Address of a node, or of the control plane (index 0), towards the router."""
    return AddressPair(f"10.70.{index}.1", f"fd70:0:{index:x}::1")


def pod_address(node_index: int, taken: Iterable[str]) -> AddressPair:
    """First free address of a node's range; `taken` are the IPv4 addresses in use."""
    used = set(taken)
    for number in range(1, 250 * 250):
        v4 = f"10.{70 + node_index}.{1 + number // 250}.{number % 250 + 1}"
        if v4 not in used:
            return AddressPair(v4, f"fd71:{node_index:x}::{number + 1:x}")
    raise ValueError(f"node {node_index} has no free address")


def service_address(taken: Iterable[str]) -> AddressPair:
    """First free pair of ClusterIPs."""
    used = {str(ip_address(item)) for item in taken}
    for number in range(10, 0xFFFF):
        v4 = str(IPv4Address("172.20.0.0") + number)
        v6 = str(IPv6Address("fd72::") + number)
        if v4 not in used and v6 not in used:
            return AddressPair(v4, v6)
    raise ValueError("no free ClusterIP")
