"""The steps of the tour: each makes claims and checks every one of them on the running lab."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agent.fetch import request
from agent.lab.tour import policies
from agent.lab.tour.traffic import CURL, check_all, curl, probe, reached
from agent.lab.tour.world import MARKER, CommandResult, World

SHOPPER, NEIGHBOUR, STRANGER = "shop/shopper", "shop/neighbour", "outside/stranger"
CLIENTS = (SHOPPER, NEIGHBOUR)
PSQL = ("psql", "-h", "postgres.shop", "-U", "postgres", "-Atq")
# A session that lasts until LET_GO, however slow the host is that looks at it meanwhile.
HOLD = "do $$begin perform pg_sleep(25); exception when query_canceled then null; end$$"
LET_GO = "select pg_cancel_backend(pid) from pg_stat_activity where query like 'do %pg_sleep%'"
BULK_BYTES = 400 * 65536  # as much as shop.py's /bulk sends


def before_enrolment(world: World) -> None:
    with world.report.step("1. Before enrolment: the traffic is readable on the link"):
        with world.capture() as crossing:
            check_all(world, CLIENTS, addresses=False)
        seen = crossing["marker_packets"]
        world.report.claim(seen > 0, f"the marker is readable in {seen} packets between the nodes")
        world.report.claim(crossing["hbone_payload_packets"] == 0, "nothing uses port 15008 yet")
        world.direct_us = probe(world, SHOPPER)
        world.report.figure(
            "fresh connection to the other node, before", f"{world.direct_us:.0f} µs (median)"
        )


def enrol(world: World) -> None:
    with world.report.step("2. Enrolled live, by one label"):
        before = _processes(world)
        started = time.monotonic()
        world.tulle("lab", "label", "namespace", "shop", "tulle.io/dataplane-mode=ambient")
        world.until(lambda: _all_captured(world), "every pod of shop is captured")
        settle_s = time.monotonic() - started
        world.until(lambda: _all_hbone(world), "every node knows that shop speaks HBONE")
        pods = len(_to_be_captured(world))
        took_s = _capture_times_s(world)
        world.report.claim(
            len(took_s) == pods,
            f"{pods} running pods captured within {settle_s:.2f} s of the command's start",
            f"the agents' logs name {len(took_s)}, the slowest with {max(took_s, default=0):.2f} s",
        )
        world.report.figure("enrolment", f"{settle_s:.2f} s for {pods} running pods, CLI included")
        with world.capture() as crossing:
            check_all(world, CLIENTS, addresses=True)
            _check_connections(world)
        _check_encrypted(world, crossing)
        world.report.claim(_processes(world) == before, "no process of a pod was restarted")
        mesh_us = probe(world, SHOPPER)
        added = f"{mesh_us:.0f} µs (median): {mesh_us - world.direct_us:.0f} µs added"
        world.report.figure("… through the tunnel, enrolled", added)


def strangers(world: World) -> None:
    with world.report.step("3. A caller outside the mesh: PERMISSIVE, then STRICT"):
        answer = curl(world, STRANGER, "nginx.shop")
        world.report.claim(reached(answer), "PERMISSIVE: the stranger is served", answer.said)
        world.apply(policies.STRICT)
        world.until(lambda: not reached(curl(world, STRANGER, "nginx.shop")), "STRICT takes hold")
        answer = curl(world, STRANGER, "nginx.shop")
        world.report.claim(not reached(answer), "STRICT: the stranger is refused", answer.said)
        answer = curl(world, STRANGER, f"[{world.address('shop/nginx', 6)}]")
        world.report.claim(not reached(answer), "… over IPv6 too", answer.said)
        answer = curl(world, SHOPPER, "nginx.shop")
        world.report.claim(reached(answer), "the mesh's own caller is served", answer.said)
        world.delete("PeerAuthentication", "istio-system", "default")
        world.until(lambda: reached(curl(world, STRANGER, "nginx.shop")), "PERMISSIVE is back")
        world.report.claim(True, "removed: the stranger is served again")


def authorization(world: World) -> None:
    with world.report.step("4. AuthorizationPolicy: who may call whom"):
        _only_reviews(world)
        _deny_all(world)
        _port_rule(world)


def faults(world: World) -> None:
    with world.report.step("6. Faults: the ztunnel killed, the control plane stopped"):
        _kill_ztunnel(world)
        _stop_control(world)


def rotation(world: World) -> None:
    with world.report.step("7. Certificates rotated during a running transfer"):
        with ThreadPoolExecutor(1) as pool:
            transfer = pool.submit(_bulk, world)
            time.sleep(0.5)  # let some of it cross under the old certificate
            old = _serials(world)
            for node in world.nodes:
                socket = world.lab.run_dir / node / "ztunnel.sock"
                request(socket, "POST", "/certificates/rotate")
            world.until(lambda: not (old & _serials(world)), "every leaf is a new one")
            running = not transfer.done()
            fresh = curl(world, SHOPPER, "nginx.shop")
            answer = transfer.result()
        world.report.claim(bool(old), f"{len(old)} leaf certificates replaced by new ones")
        world.report.claim(running, "the transfer was running meanwhile")
        size = answer.out.strip()
        world.report.claim(size == str(BULK_BYTES), "and it ended whole", f"{size} bytes")
        world.report.claim(reached(fresh), "new connections use the new leaves", fresh.said)


# Step 2


def _to_be_captured(world: World) -> set[str]:
    """Pods of shop but for its waypoint, which takes tunnels by itself."""
    pods = world.lab.store.load().pods
    return {key for key in pods if key.startswith("shop/") and not pods[key].spec.waypoint}


def _all_captured(world: World) -> bool:
    wanted = _to_be_captured(world)
    captured = {
        f"{pod['namespace']}/{pod['name']}"
        for node in world.nodes
        for pod in world.agent(node)["pods"]
        if pod["state"] == "captured"
    }
    return wanted <= captured


def _capture_times_s(world: World) -> list[float]:
    """Seconds from the intent to the capture of each pod, from the agents' logs."""
    text = "".join(world.log(f"agent-{node}") for node in world.nodes)
    return [float(each) for each in re.findall(r"pod\.captured .*?took_s=([0-9.]+)", text)]


def _all_hbone(world: World) -> bool:
    for node in world.nodes:
        found = [w for w in world.ztunnel(node)["workloads"] if w["namespace"] == "shop"]
        if not found or any(w["protocol"] != "HBONE" for w in found):
            return False
    return True


def _check_connections(world: World) -> None:
    """Hold a database session open for as long as it takes to look at it."""
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(world.ask, SHOPPER, *PSQL, "-c", HOLD, "-c", "select 'let go'")
        try:
            world.until(lambda: bool(_open_to_database(world)), "the open session is listed")
            table = world.tulle("connections", "-n", "shop")
            world.report.show(table)
            found = _open_to_database(world)
        finally:
            world.ask(SHOPPER, *PSQL, "-c", LET_GO)
        answer = held.result()
    ids = ("cluster.local/ns/shop/sa/shopper", "cluster.local/ns/shop/sa/postgres")
    both = [c for c in found if ids[0] in str(c) and ids[1] in str(c)]
    world.report.claim(bool(both), "the open psql session is listed with both SPIFFE identities")
    world.report.claim("let go" in answer.out, "and the session ended well", answer.said)


def _open_to_database(world: World) -> list[Any]:
    state = world.ztunnel(world.nodes[0])["workloadState"].values()
    every = [c for workload in state for c in workload["connections"]["outbound"]]
    return [c for c in every if "postgres" in str(c.get("destinationWorkload"))]


def _check_encrypted(world: World, crossing: Any) -> None:
    report = world.report
    report.claim(crossing["marker_packets"] == 0, "the marker is seen 0 times between the nodes")
    records, handshakes = crossing["tls_records"], crossing["tls13_handshakes"]
    report.claim(records > 0, f"{records} TLS records crossed on port 15008")
    report.claim(handshakes > 0, f"{handshakes} handshakes chose TLS 1.3")
    plain = crossing["plaintext_payload_packets"]
    report.claim(
        plain == 0, "no plaintext packet crossed between them", crossing["plaintext_ports"] or ""
    )


def _processes(world: World) -> dict[str, object]:
    return {key: pod.process for key, pod in world.lab.store.load().pods.items()}


# Step 4


def _only_reviews(world: World) -> None:
    report = world.report
    world.apply(policies.RATINGS_FROM_REVIEWS)
    world.until(lambda: not reached(curl(world, SHOPPER, "ratings.shop")), "the policy takes hold")
    answer = curl(world, SHOPPER, "ratings.shop")
    report.claim(not reached(answer), "ratings refuses the shopper", answer.said)
    answer = curl(world, "shop/reviews-v2", "ratings.shop")
    report.claim(reached(answer), "ratings serves reviews, from the same node", answer.said)
    answer = curl(world, "shop/reviews-v3", "ratings.shop")
    report.claim(reached(answer), "ratings serves reviews, from the other node", answer.said)
    _claim_logged(world, "shop/ratings-from-reviews")
    world.delete("AuthorizationPolicy", "shop", "ratings-from-reviews")
    world.until(lambda: reached(curl(world, SHOPPER, "ratings.shop")), "removal restores")
    report.claim(True, "removed: ratings serves the shopper again")


def _deny_all(world: World) -> None:
    report = world.report
    world.apply(policies.DENY_ALL)
    world.until(lambda: not reached(curl(world, SHOPPER, "nginx.shop")), "deny-all takes hold")
    for host in ("nginx.shop", "details.shop"):
        answer = curl(world, SHOPPER, host)
        report.claim(not reached(answer), f"deny-all: {host} refuses the shopper", answer.said)
    answer = curl(world, STRANGER, "nginx.shop")
    report.claim(not reached(answer), "deny-all: nor is the stranger served", answer.said)
    world.delete("AuthorizationPolicy", "shop", "deny-all")
    world.until(lambda: reached(curl(world, SHOPPER, "nginx.shop")), "removal restores")
    report.claim(True, "removed: nginx serves the shopper again")


def _port_rule(world: World) -> None:
    report = world.report
    world.apply(policies.NO_CACHE_PORT)
    ping = ("redis-cli", "-h", "redis.shop", "ECHO", MARKER)
    world.until(lambda: not reached(world.ask(SHOPPER, *ping)), "the port rule takes hold")
    answer = world.ask(SHOPPER, *ping)
    report.claim(not reached(answer), "a port rule: redis refuses port 6379", answer.said)
    answer = curl(world, SHOPPER, "nginx.shop")
    report.claim(reached(answer), "port 80 is served as before", answer.said)
    _claim_logged(world, "shop/no-cache-port")
    world.delete("AuthorizationPolicy", "shop", "no-cache-port")
    world.until(lambda: reached(world.ask(SHOPPER, *ping)), "removal restores")
    report.claim(True, "removed: redis serves the shopper again")


def _claim_logged(world: World, policy: str) -> None:
    lines = [line for line in world.log("ztunnel-n2").splitlines() if policy in line]
    world.report.claim(bool(lines), f"the log names {policy}", lines[-1] if lines else "")


# Step 6


def _kill_ztunnel(world: World) -> None:
    report = world.report
    with world.capture() as crossing:
        world.tulle("lab", "kill", "ztunnel", "n1")
        out = curl(world, SHOPPER, "nginx.shop")
        into = curl(world, NEIGHBOUR, "details.shop")
        plain = curl(world, STRANGER, "details.shop")
    report.claim(not reached(out), "no ztunnel: an enrolled pod has no way out", out.said)
    report.claim(not reached(into), "nor does a caller get in, from the mesh", into.said)
    report.claim(not reached(plain), "… or from outside of it", plain.said)
    leaked = crossing["plaintext_payload_packets"] + crossing["marker_packets"]
    report.claim(leaked == 0, "0 plaintext packets crossed meanwhile", crossing["plaintext_ports"])
    world.tulle("lab", "restart", "ztunnel", "n1")
    back_s = world.until(
        lambda: (
            reached(curl(world, SHOPPER, "nginx.shop"))
            and reached(curl(world, NEIGHBOUR, "details.shop"))
        ),
        "traffic flows again",
    )
    report.claim(True, f"a new ztunnel is there: traffic flows again after {back_s:.2f} s")


def _stop_control(world: World) -> None:
    report = world.report
    with ThreadPoolExecutor(1) as pool:
        transfer = pool.submit(_bulk, world)
        world.tulle("lab", "stop", "control")
        fresh = [curl(world, pod, "nginx.shop") for pod in CLIENTS]
        size = transfer.result().out.strip()
    report.claim(size == str(BULK_BYTES), "control plane away: an open transfer goes on", size)
    report.claim(all(map(reached, fresh)), "… and new connections are made", fresh[0].said)
    world.tulle("lab", "restart", "control")
    world.until(
        lambda: all(world.agent(node)["control"]["connected"] for node in world.nodes),
        "the nodes are connected again",
        timeout_s=30,
    )
    report.claim(True, "control plane back: the nodes are connected again")


def _bulk(world: World) -> CommandResult:
    """26 MB at a steady pace, from the other node."""
    where = f"http://{world.address('shop/ratings-v1')}:9080/bulk"
    size = ("-o", "/dev/null", "-w", "%{size_download}")
    return world.ask(SHOPPER, *CURL[:2], "--max-time", "30", *size, where, timeout_s=40)


# Step 7


def _serials(world: World) -> set[str]:
    return {
        str(item["serialNumber"])
        for node in world.nodes
        for certificate in world.ztunnel(node)["certificates"]
        for item in certificate["certChain"][:1]
    }
