"""Two nodes with IPv6's smallest MTU between them, and routers that tell nobody."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from agent.lab import plan
from agent.lab.netns import inside
from tests.chaos.faults import narrow
from tests.support.lab.mesh_bed import FAMILIES, Bed, speak

LARGE = "x" * 65536
# The kernel needs 3 s to 7 s of losses to see what is going on, in each direction.
NOTICED_S = 25.0
_SILENT = """\
table inet silent {
  chain made { type filter hook output priority 0;
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop
  }
}
"""


@contextmanager
def silent(*namespaces: str) -> Iterator[None]:
    """Nobody there says "too big" any more."""
    with ExitStack() as stack:
        for each in namespaces:
            _nft(each, _SILENT)
            stack.callback(_nft, each, "delete table inet silent\n")
        yield


def _nft(namespace: str, rules: str) -> None:
    with inside(namespace):
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def say_much(bed: Bed, family: int) -> bool:
    with bed.connect("client", "server", family) as sock:
        sock.settimeout(NOTICED_S)
        return speak(sock, LARGE) != ""


def say_much_in_both(bed: Bed) -> bool:
    with ThreadPoolExecutor() as pool:
        return all(pool.map(lambda family: say_much(bed, family), FAMILIES))


@pytest.mark.timeout(120)
def test_a_path_that_drops_them_without_a_word_is_noticed(bed: Bed) -> None:
    """The first test: once a path is known to be narrow, the kernel remembers it."""
    state = bed.lab.store.load()
    router, there = plan.router_netns(state.lab), state.node(bed.there).netns
    with bed.connect("client", "server", 4) as other:
        assert speak(other)
        with silent(router, there), narrow(bed, bed.there):
            assert say_much_in_both(bed)
            other.settimeout(NOTICED_S)
            assert speak(other), "it shares the tunnel"


def test_large_messages_fit_a_narrow_path(bed: Bed) -> None:
    with narrow(bed, bed.there):
        assert say_much_in_both(bed)
