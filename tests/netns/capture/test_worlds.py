"""Pods of one family, and pods in which IPv6 is off: both ways through the ztunnel, and inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernel.datapath import Bed, client_option, original_destination
from tests.support.kernel.netns import Network, Pod

V4 = ("10.77.0.2", "10.77.0.9", "0.0.0.0", "127.0.0.1", "203.0.113.7")
V6 = ("fd77::2", "fd77::9", "::", "::1", "2001:db8::7")


def switch_off_v6(pod: Pod) -> None:
    """As container runtimes do where a cluster has IPv4 alone: no ::1, no address at all."""
    with pod.inside():
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")


@pytest.mark.parametrize("world", ["v6", "v4", "off before the capture", "off afterwards"])
def test_a_pod_of_one_family_is_served_as_any_other(bed: Bed, network: Network, world: str) -> None:
    own, other, anywhere, inside, client = V6 if world == "v6" else V4
    at = (None, own) if world == "v6" else (own, None)
    pod = network.pod("app", *at)
    far = network.pod("far", *((None, other) if world == "v6" else (other, None)))
    if world == "off before the capture":
        switch_off_v6(pod)
    listeners = bed.capture(pod, "uid-app")
    if world == "off afterwards":
        switch_off_v6(pod)
    with pod.dial((other, 80)) as out, listeners.outbound.accept()[0] as taken:
        assert original_destination(taken) == (other, 80)
        assert (out.getsockname()[0], out.getpeername()[0]) == (own, other)
    for port, listener in ((8080, listeners.plaintext), (15008, listeners.hbone)):
        with far.dial((own, port)):
            listener.accept()[0].close()
    with pod.listen(anywhere) as app:
        port = app.getsockname()[1]
        claim = client_option(client, 5123)
        with bed.ztunnel.dial(pod, (own, port), option=claim, ours=True):
            accepted, shown = app.accept()
            accepted.close()
            assert shown[:2] == (client, 5123)
        for host in (own, inside):
            with pod.dial((host, port)):
                app.accept()[0].close()
    assert bed.node.counters()["source_missing"] == 0
