"""A socket in the hands of another pod is still its own pod's, to policies of both sides."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import PORT, Bed, soon

DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-client, namespace: mesh}
spec:
  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/mesh/sa/client"]}}]}]
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: mesh}
spec: {mtls: {mode: STRICT}}
"""
LISTEN_PORT = 7777
# Gets a socket by SCM_RIGHTS, and connects or accepts with it.
_HOLDER = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
_, descriptors, _, _ = socket.recv_fds(link, 1, 1)
held = socket.socket(fileno=descriptors[0])
held.settimeout(8)
try:
    if sys.argv[2] == "accept":
        held, _ = held.accept()
    else:
        held.connect((sys.argv[2], int(sys.argv[3])))
    held.sendall(b"hello\\n")
    print(held.recv(100).decode().split(" ")[0].removeprefix("::ffff:"))
except OSError:
    print("refused")
"""


def hold(bed: Bed, pod: str, sock: socket.socket, *words: str) -> subprocess.Popen[str]:
    """Hand the socket to a process of this pod."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", _HOLDER, str(theirs.fileno()), *words]
        with inside(bed.pod(pod).netns):
            made = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True
            )
        socket.send_fds(ours, [b"x"], [sock.fileno()])
    return made


def seen_by(bed: Bed, target: str, made_in: str, held_in: str) -> str:
    """The client as the target sees it; "" or "refused": it sees nobody."""
    with bed.socket(made_in, 4) as sock:
        holder = hold(bed, held_in, sock, bed.address(target, 4), str(PORT))
        return holder.communicate(timeout=20)[0].strip()


@pytest.fixture
def closed(bed: Bed) -> Iterator[None]:
    """`client` is denied; whoever has no identity is refused."""
    with bed.policy(DENY, STRICT):
        cases = [(pod, to, PORT) for pod in ("client", "stranger") for to in ("server", "near")]
        soon(lambda: bed.no(*cases), "in force")
        yield


@pytest.mark.parametrize("target", ["server", "near"])
def test_its_client_is_the_pod_in_which_it_was_made(bed: Bed, closed: None, target: str) -> None:
    assert seen_by(bed, target, "other", held_in="client") == bed.address("other", 4)
    assert seen_by(bed, target, "other", held_in="stranger") == bed.address("other", 4)
    for made_in in ("client", "stranger"):
        assert seen_by(bed, target, made_in, held_in="other") in ("", "refused"), made_in


def test_a_listener_keeps_the_policy_of_its_pod(bed: Bed, closed: None) -> None:
    """Held by a pod that lets in everybody."""
    with inside(bed.pod("server").netns):
        listener = socket.create_server(("0.0.0.0", LISTEN_PORT))
    with listener:
        holder = hold(bed, "stranger", listener, "accept")
        try:
            assert bed.no(("client", "server", LISTEN_PORT), ("stranger", "server", LISTEN_PORT))
            with bed.connect("other", "server", 4, LISTEN_PORT) as sock:
                assert sock.recv(100) == b"hello\n"
        finally:
            holder.kill()
            holder.communicate()
