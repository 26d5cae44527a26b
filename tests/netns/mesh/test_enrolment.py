"""A pod that runs leaves and joins a mesh under STRICT: the others go on to be served."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.lab import changes
from tests.support.lab.mesh_bed import ENROLLED, PORT, Bed, Reply

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
MODE = "tulle.io/dataplane-mode"
ROUNDS = 4


@contextmanager
def asking(bed: Bed, target: str) -> Iterator[Counter[Reply]]:
    """Connect and ask, one time after the other, for as long as the context lasts."""
    replies, over = Counter[Reply](), threading.Event()

    def ask() -> None:
        while not over.is_set():
            replies[bed.reach("client", target)] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield replies
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("target", ["server", "near"])
def test_no_request_fails_while_its_server_leaves_and_joins(bed: Bed, target: str) -> None:
    others = tuple(each for each in ENROLLED if each != target)
    with bed.policy(STRICT):
        for _ in range(ROUNDS):
            with asking(bed, target) as replies:
                changes.label(bed.lab, "Pod", "mesh", target, [f"{MODE}=none"])
                bed.wait_captured(others)
            assert set(replies) == {Reply.ANSWERED}, f"it left: {replies}"
            assert bed.yes(("stranger", target, PORT)), "it is out of the mesh"
            with asking(bed, target) as replies:
                changes.label(bed.lab, "Pod", "mesh", target, [f"{MODE}-"])
                bed.wait_captured()
            assert set(replies) == {Reply.ANSWERED}, f"it joined: {replies}"
            assert bed.no(("stranger", target, PORT)), "STRICT holds as soon as it is captured"
