"""Policies on a running mesh, both families: admission, changes, and policies that cannot be
understood."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import changes
from control.kit.files import write_atomic
from tests.netns.mesh.policy_rows import (
    CLIENT,
    OTHER,
    ROWS,
    C,
    E,
    N,
    S,
    X,
    authorization,
    peer,
    source,
)
from tests.support.lab.mesh_bed import (
    FAMILIES,
    POLICY_FILE,
    Bed,
    Reply,
    is_closed,
    mesh_bed,
    soon,
    speak,
)

ROOT = Path(__file__).resolve().parents[3]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    # Two workers, because each has its own copy of the policies and its own open connections.
    with mesh_bed(tmp_path_factory.mktemp("policy"), workers=2) as made:
        yield made


EVERYTHING = ((C, S, 8080), (E, N, 8080), (X, S, 8080), (X, N, 9090))


@pytest.mark.parametrize("name", ROWS)
def test_a_policy_holds_for_those_it_names_and_nobody_else(bed: Bed, name: str) -> None:
    row = ROWS[name]
    assert bed.yes(*row.refused, *row.allowed)
    with bed.policy(row.policy):
        soon(lambda: bed.no(*row.refused) and policies_known(bed, 1), f"{name}: refused")
        assert bed.yes(*row.allowed)
        assert bed.no(*row.refused)
    soon(lambda: bed.yes(*row.refused) and policies_known(bed, 0), f"{name}: allowed again")


def policies_known(bed: Bed, at_least: int) -> bool:
    """True once both ztunnels have the change."""
    counts = [len(bed.ztunnel(node)["policies"]) for node in (bed.here, bed.there)]
    return all(count >= at_least for count in counts) if at_least else sum(counts) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_block_of_one_family_refuses_that_family(bed: Bed, family: int) -> None:
    block = bed.address("client", family)
    other_family = 10 - family
    with bed.policy(authorization(source(ipBlocks=[block]))):
        soon(lambda: bed.reach("client", "server", family) is not Reply.ANSWERED, "refused")
        assert bed.reach("client", "server", other_family) is Reply.ANSWERED
        assert bed.yes(("other", "server", 8080))
    soon(lambda: bed.yes(("client", "server", 8080)), "allowed again")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_policy_ends_open_connections_that_it_forbids_and_no_others(
    bed: Bed, family: int
) -> None:
    with (
        bed.connect("client", "server", family) as forbidden,
        bed.connect("stranger", "server", family, 9090) as forbidden_plain,
        bed.connect("other", "server", family) as allowed,
        bed.connect("client", "near", family) as elsewhere,
        bed.connect("stranger", "near", family) as plain,
    ):
        every = (forbidden, forbidden_plain, allowed, elsewhere, plain)
        assert all(speak(sock) for sock in every)
        with bed.policy(authorization(source(notPrincipals=[OTHER]))):
            assert is_closed(forbidden)
            assert is_closed(forbidden_plain)
            assert all(speak(sock) for sock in (allowed, elsewhere, plain))
    soon(lambda: bed.yes(("client", "server", 8080), ("stranger", "server", 9090)), "restored")


def test_a_label_that_makes_a_policy_apply_ends_open_connections_too(bed: Bed) -> None:
    with (
        bed.policy(authorization(source(principals=[CLIENT]), app="locked")),
        bed.connect("client", "server", 4) as sock,
    ):
        soon(lambda: policies_known(bed, 1), "the policy is known")
        assert speak(sock)
        changes.label(bed.lab, "Pod", "mesh", "server", ["app=locked"])
        try:
            assert is_closed(sock)
            assert bed.no(("client", "server", 8080))
        finally:
            changes.label(bed.lab, "Pod", "mesh", "server", ["app=server"])
    soon(lambda: bed.yes(("client", "server", 8080)), "restored")


def test_while_a_policy_is_narrowed_and_widened_nobody_slips_through(bed: Bed) -> None:
    """The policy and the workload that names it travel apart."""
    wide, narrow = (authorization(source(principals=[CLIENT]), app=app) for app in ("", "server"))
    tried = 0
    with bed.policy(wide):
        soon(lambda: bed.no(("client", "server", 8080)) and policies_known(bed, 1), "refused")
        for text, scope in ((narrow, "WorkloadSelector"), (wide, "Namespace")) * 6:
            bed.write_policy(text)
            deadline_s = time.monotonic() + 10.0
            while {each["scope"] for each in bed.ztunnel(bed.there)["policies"]} != {scope}:
                assert time.monotonic() < deadline_s, f"{scope} has not arrived"
                for _ in range(10):
                    assert bed.reach("client", "server") is not Reply.ANSWERED
                    tried += 1
    assert tried > 100
    soon(lambda: bed.yes(("client", "server", 8080)), "restored")


GOOD = authorization(source(principals=[CLIENT]))
BROKEN = {
    "unknown field": GOOD.replace('"principals"', '"principles"'),
    "bad block": authorization(source(ipBlocks=["10.0.0.0/99"])),
    "bad port": authorization([{"to": [{"operation": {"ports": ["65536"]}}]}]),
    "unknown action": GOOD.replace("DENY", "REFUSE"),
    "not yaml": GOOD[:-4],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_update_keeps_the_last_good_policy_and_is_reported(bed: Bed, name: str) -> None:
    with bed.policy(GOOD):
        soon(lambda: bed.no(("client", "server", 8080)), "the good one holds")
        bed.write_policy(BROKEN[name])
        soon(lambda: reported(bed), "the broken one is reported")
        assert bed.no(("client", "server", 8080))
        assert bed.yes(("other", "server", 8080))
    soon(lambda: bed.yes(("client", "server", 8080)), "gone with its file")
    soon(lambda: not reported(bed), "and so is the report")


@pytest.mark.parametrize("name", [each for each in BROKEN if each != "not yaml"])
def test_a_broken_allow_list_never_lets_in_more(bed: Bed, name: str) -> None:
    """Beside a good list, and alone: nobody gets in unless an understood rule names him."""
    listed = authorization(source(principals=[OTHER]), "ALLOW").replace("tested", "listed")
    broken = BROKEN[name].replace("DENY", "ALLOW").replace(CLIENT, CLIENT)
    with bed.policy(listed):
        soon(lambda: bed.no(("client", "server", 8080)), "the list holds")
        bed.write_policy(listed, broken)
        soon(lambda: reported(bed), "the broken one is reported")
        assert bed.no(("client", "server", 8080), ("stranger", "server", 8080))
    soon(lambda: bed.yes(("client", "server", 8080)), "restored")


@pytest.mark.parametrize("target", [{"targetRefs": []}, {"targetRef": {}}])
def test_an_empty_target_does_not_disarm_a_broken_policy(
    bed: Bed, target: dict[str, object]
) -> None:
    value = json.loads(authorization([{"form": []}], app=""))
    value["spec"].update(target)
    with bed.policy(json.dumps(value)):
        settle(bed)
        assert reported(bed)
        assert bed.no(("client", "server", 8080))
    soon(lambda: bed.yes(("client", "server", 8080)), "restored")


def test_a_broken_file_opens_nothing_when_the_control_plane_restarts(bed: Bed) -> None:
    with bed.policy(GOOD):
        soon(lambda: bed.no(("client", "server", 8080)), "the good one holds")
        bed.write_policy(BROKEN["not yaml"])
        soon(lambda: reported(bed), "the broken one is reported")
        changes.restart(bed.lab, "control", None)
        settle(bed)
        assert bed.no(("client", "server", 8080))
    soon(lambda: bed.yes(("client", "server", 8080)), "restored")


def settle(bed: Bed) -> None:
    """Let a policy for nobody come and go. Removals are sent last: a node that has heard of its end
    has heard of everything before it."""
    name = f"sentinel-{next(_numbers)}"  # new each time: the last one may still be known
    file = bed.lab.manifests_folder / f"{name}.yaml"
    text = authorization(source(principals=[CLIENT]), app="nobody").replace("tested", name)
    write_atomic(file, text.encode())
    try:
        soon(lambda: all(name in str(bed.ztunnel(n)["policies"]) for n in nodes(bed)), "heard")
    finally:
        file.unlink()
    soon(lambda: not any(name in str(bed.ztunnel(n)["policies"]) for n in nodes(bed)), "settled")


def reported(bed: Bed) -> bool:
    """As file and line, which is what an editor can jump to."""
    found = [each for each in bed.control("/problems") if POLICY_FILE in json.dumps(each)]
    return any(each["line"] > 0 and each["file"].endswith(POLICY_FILE) for each in found)


def test_a_private_key_is_nowhere_but_in_memory(bed: Bed, tmp_path: Path) -> None:
    assert bed.yes(("client", "server", 8080))
    dump = tmp_path / "dump.json"
    command = [sys.executable, "-m", "agent.cli.main", "--run-dir", str(bed.lab.run_dir)]
    subprocess.run([*command, "dump", "-o", str(dump)], cwd=ROOT, check=True, timeout=60)
    texts = {"dump": dump.read_text()}
    for node in (bed.here, bed.there):
        texts[f"ztunnel of {node}"] = json.dumps(bed.ztunnel(node))
        texts[f"agent of {node}"] = json.dumps(bed.agent(node))
    for page in ("/status", "/config", "/workloads", "/pods", "/policies", "/problems"):
        texts[page] = json.dumps(bed.control(page))
    authority = bed.lab.run_dir / "control" / "state"  # the mesh's own CA key, by design
    for path in bed.lab.run_dir.rglob("*"):
        if path.is_file() and authority not in path.parents:
            texts[str(path)] = path.read_text(errors="replace")
    assert "CERTIFICATE" in texts["dump"] or "spiffe://" in texts["dump"]
    assert [name for name, text in texts.items() if "PRIVATE KEY" in text] == []
    tokens = [(bed.lab.run_dir / node / "token").read_text().strip() for node in nodes(bed)]
    leaks = [
        name
        for name, text in texts.items()
        if not name.endswith("/token") and any(token in text for token in tokens)
    ]
    assert leaks == []
    for path in authority.rglob("*"):
        if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace"):
            assert path.stat().st_mode & 0o077 == 0


def nodes(bed: Bed) -> tuple[str, str]:
    return bed.here, bed.there


def test_connections_leave_no_descriptor_and_no_map_entry_behind(bed: Bed) -> None:
    for number in range(TUNNELS_ARE_THERE):
        assert bed.reach("client", "server", FAMILIES[number % 2]) is Reply.ANSWERED
    assert bed.yes(("client", "server", 8080), ("stranger", "server", 8080))
    before = held(bed)
    for number in range(150):
        for pod in ("client", "stranger"):
            assert bed.reach(pod, "server", FAMILIES[number % 2]) is Reply.ANSWERED
        if number % 10 == 0:  # given up half way: reset instead of closed
            with bed.connect("client", "server", 4) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    soon(lambda: all(now <= was for now, was in zip(held(bed), before, strict=True)), "all freed")


# After this many connections every worker has its tunnels of both families: the chance that one of
# two has got none of 20 is one in 500,000.
TUNNELS_ARE_THERE = 40


def held(bed: Bed) -> list[int]:
    """Descriptors of every worker, then used entries of every map."""
    found = [
        len(list(Path(f"/proc/{pid}/fd").iterdir())) for n in nodes(bed) for pid in bed.workers(n)
    ]
    return found + [each["used"] for node in nodes(bed) for each in bed.agent(node)["maps"]]


def refusal(bed: Bed, target: str, port: int, family: int) -> str:
    """The end of a stranger's connect(): a port that is closed looks closed from the SYN on."""
    try:
        with bed.dial(X, bed.address(target, family), port):
            return "connected"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "accepted and reset"


@pytest.mark.parametrize("family", [4, 6])
def test_strict_refuses_a_strangers_syn(bed: Bed, family: int) -> None:
    """portLevelMtls counts, clients with an identity do not notice, and it ends with the policy."""
    strict = peer("mesh", app=S, ports={"9090": "PERMISSIVE"})

    def look() -> tuple[str, str, str]:
        return tuple(refusal(bed, *each, family) for each in ((S, 8080), (S, 9090), (N, 8080)))

    with bed.policy(strict):
        soon(lambda: look() == ("refused", "connected", "connected"), "the SYN is refused")
        assert bed.reach(C, S, family) is Reply.ANSWERED
        assert counters(bed)["inbound_strict"] > 0
        said = f"dst.workload={S.partition('/')[2] or S} .*reason=inbound_strict count="
        soon(lambda: bool(re.search(said, agent_logs(bed))), "an agent says who and why")
        assert bed.reach(X, N, family) is Reply.ANSWERED
    soon(lambda: look() == ("connected",) * 3, "it ends")
    permissive = peer("mesh", app=S, ports={"9090": "STRICT"}).replace(
        '"STRICT"', '"PERMISSIVE"', 1
    )
    with bed.policy(permissive):
        soon(lambda: look() == ("connected", "refused", "connected"), "one port")
    with bed.policy(peer("mesh")):
        soon(lambda: look() == ("refused",) * 3, "the whole namespace")


def agent_logs(bed: Bed) -> str:
    return "".join(bed.log(f"agent-{node}") for node in (bed.here, bed.there))


def counters(bed: Bed) -> Counter[str]:
    """Those of all nodes, added up."""
    found: Counter[str] = Counter()
    for node in (bed.here, bed.there):
        found.update(bed.agent(node)["counters"])
    return found
