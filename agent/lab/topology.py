"""The lab's network: builds and removes namespaces, links, addresses and routes by netlink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.lab import netns, plan
from agent.lab.netns import inside, netlink
from control.kit.errors import KernelError

_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/default/accept_dad": "0",  # a tentative address would delay the start
    "ipv6/conf/default/accept_ra": "0",
}
_ROUTER_SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}
_POD_SYSCTLS = {"ipv4/ip_unprivileged_port_start": "0", "ipv4/ping_group_range": "0 2147483647"}
_IFA_F_NODAD = 0x02
_ANY_V4, _ANY_V6 = "0.0.0.0/0", "::/0"


def create_namespace(name: str, sysctls: dict[str, str]) -> None:
    """Create a namespace with its loopback up; KernelError if it exists already."""
    netns.create(name)
    with inside(name):
        for key, value in {**_SYSCTLS, **sysctls}.items():
            Path("/proc/sys/net", key).write_text(value)
    with netlink(name) as here:
        here.link("set", index=1, state="up")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn refusals of the kernel into errors that name what was being built."""
    try:
        yield
    except NetlinkError as exc:
        raise KernelError(f"{what}: {exc}") from exc


@_told("router network")
def build_router(lab: str) -> None:
    name = plan.router_netns(lab)
    create_namespace(name, _ROUTER_SYSCTLS)
    with netlink(name) as here:
        # A virtual address that was not translated must fail at once.
        for target in plan.SERVICE_RANGES:
            here.route("add", dst=target, type="unreachable")


@_told("control network")
def build_control(lab: str) -> None:
    name = plan.control_netns(lab)
    create_namespace(name, {})
    router = plan.AddressPair("10.70.0.254", "fd70::fe")
    _join_router(lab, name, "to-control", plan.uplink(0), router)


@_told("node network")
def build_node(lab: str, node: plan.NodePlan) -> None:
    create_namespace(node.netns, _ROUTER_SYSCTLS)
    link = _join_router(lab, node.netns, f"to-{node.name}", node.address, node.router)
    with netlink(plan.router_netns(lab)) as router:
        router.route("add", dst=node.pods_v4, gateway=node.address.v4, oif=link)
        router.route("add", dst=node.pods_v6, gateway=node.address.v6, oif=link)
    with netlink(node.netns) as here:
        # Below the pods' own routes: a packet to an address without a pod must not circle.
        here.route("add", dst=node.pods_v4, type="unreachable")
        here.route("add", dst=node.pods_v6, type="unreachable")


@_told("pod network")
def build_pod(name: str, node: plan.NodePlan, link: str, address: plan.AddressPair) -> None:
    """Build a pod's namespace and its routed veth; `link` names the node's end."""
    create_namespace(name, _POD_SYSCTLS)
    with netlink(node.netns) as outside, netlink(name) as pod:
        outside.link("add", ifname=link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": name})
        outer = _index(outside, link)
        inner = _index(pod, "eth0")
        _add_address(outside, outer, plan.NODE_GATEWAY_V6, 64)
        outside.link("set", index=outer, state="up")
        _add_address(pod, inner, address.v4, 32)
        _add_address(pod, inner, address.v6, 128)
        pod.link("set", index=inner, state="up")
        pod.route("add", dst=f"{node.address.v4}/32", oif=inner, scope="link")
        pod.route("add", dst=_ANY_V4, gateway=node.address.v4, oif=inner)
        pod.route("add", dst=_ANY_V6, gateway=plan.NODE_GATEWAY_V6, oif=inner)
        outside.route(
            "add", dst=f"{address.v4}/32", oif=outer, scope="link", prefsrc=node.address.v4
        )
        outside.route("add", dst=f"{address.v6}/128", oif=outer, prefsrc=node.address.v6)


def remove_pod(name: str, node_netns: str, link: str) -> None:
    """Remove a pod's network. The link goes first, in case something still holds the namespace."""
    try:
        with netlink(node_netns) as outside:
            for index in outside.link_lookup(ifname=link):
                outside.link("del", index=index)
    except (OSError, NetlinkError):
        pass  # the node or the link is gone already
    netns.remove(name)


def _join_router(
    lab: str, name: str, link: str, own: plan.AddressPair, router: plan.AddressPair
) -> int:
    """Build a veth from `name` (eth0) to the router (`link`); the router's interface index."""
    with netlink(plan.router_netns(lab)) as outside, netlink(name) as here:
        outside.link("add", ifname=link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": name})
        outer = _index(outside, link)
        inner = _index(here, "eth0")
        for handle, index, pair in ((outside, outer, router), (here, inner, own)):
            _add_address(handle, index, pair.v4, 24)
            _add_address(handle, index, pair.v6, 64)
            handle.link("set", index=index, state="up")
        here.route("add", dst=_ANY_V4, gateway=router.v4, oif=inner)
        here.route("add", dst=_ANY_V6, gateway=router.v6, oif=inner)
        return outer


def _add_address(handle: IPRoute, index: int, address: str, prefix_length: int) -> None:
    """Add an address that is usable at once: without IPv6 duplicate detection."""
    flags = {"flags": _IFA_F_NODAD} if ":" in address else {}
    handle.addr("add", index=index, address=address, prefixlen=prefix_length, **flags)


def _index(handle: IPRoute, name: str) -> int:
    found = handle.link_lookup(ifname=name)
    if not found:
        raise KernelError(f"there is no link {name}")
    return int(found[0])
