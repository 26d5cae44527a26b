"""The tour's step about two pods of one node: the kernel carries their connections, and cuts them.

The path of a connection is read where a user would: in the access log and `tulle connections`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.lab.tour import policies
from agent.lab.tour.report import ClaimFailed
from agent.lab.tour.traffic import PROBE_ROUNDS, PSQL, curl, probe, reached
from agent.lab.tour.world import CommandResult, World

CLIENT, NODE = "shop/neighbour", "n2"  # ratings, nginx and postgres run there too
WHO = "select host(inet_client_addr())"
HOLD = "select pg_sleep(25)"  # longer than a slow host takes to list it, and a policy to cut it

Result = TypeVar("Result")


def direct(world: World) -> None:
    with world.report.step("5. Same node: the ztunnel decides, the kernel carries"):
        _first_and_later(world)
        _cut(world)
        _switched_off(world)


def _first_and_later(world: World) -> None:
    report = world.report
    line = _visit(world, "ratings", "ratings-v1")
    report.claim(not _is_direct(line), "the first connection to ratings: tunnel", _tail(line))
    world.until(lambda: _is_direct(_visit(world, "ratings", "ratings-v1")), "ratings goes direct")
    line = _visit(world, "ratings", "ratings-v1")
    report.claim(_is_direct(line), "later ones: direct, and logged as well", _tail(line))


def _cut(world: World) -> None:
    """A database session between two pods of one node, and a policy that comes meanwhile."""
    report = world.report
    world.until(lambda: _is_direct(_asked(world)), "psql goes direct")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(_psql, world, "-c", WHO, "-c", HOLD)
        world.until(lambda: " direct " in _listed(world, quiet=True), "the session is listed")
        report.show(_listed(world))
        report.claim(not held.done(), "an open psql session is listed as direct")
        world.apply(policies.NO_NEIGHBOUR)
        cut = held.result()
    seen = cut.out.strip()
    real = (world.address(CLIENT), world.address(CLIENT, 6))
    report.claim(seen in real, f"PostgreSQL saw the client's own address, {seen}")
    report.claim(cut.code != 0, "a policy against it cuts the open session", cut.err)
    refused = _psql(world, "-c", WHO)
    report.claim(refused.code != 0, "… and the next one is refused", refused.err)
    world.delete("AuthorizationPolicy", "shop", "no-neighbour")
    world.until(lambda: _psql(world, "-c", WHO).code == 0, "removal restores")


def _switched_off(world: World) -> None:
    report = world.report
    world.until(lambda: _is_direct(_visit(world, "nginx", "nginx")), "nginx goes direct")
    direct_us, carried = _probe(world)
    report.claim(2 * carried > PROBE_ROUNDS, f"{carried} of {PROBE_ROUNDS} to nginx: direct")
    world.tulle("lab", "label", "pod", "nginx", "-n", "shop", "tulle.io/path=tunnel")
    world.until(lambda: not _is_direct(_visit(world, "nginx", "nginx")), "the label takes hold")
    tunnel_us, carried = _probe(world)
    report.claim(carried == 0, f"the label: {carried} of {PROBE_ROUNDS} direct, all in the tunnel")
    both = f"{direct_us:.0f} µs direct, {tunnel_us:.0f} µs in the tunnel (medians)"
    report.claim(direct_us < tunnel_us, f"a fresh connection: {both}")
    report.figure("fresh connection, same node", both)
    world.tulle("lab", "label", "pod", "nginx", "-n", "shop", "tulle.io/path-")


# --- clients, and what the access log says of them --------------------------------------------


def _psql(world: World, *arguments: str) -> CommandResult:
    return world.ask(CLIENT, *PSQL, "-h", "postgres.shop", *arguments)


def _listed(world: World, quiet: bool = False) -> str:
    return world.tulle("connections", CLIENT, "--direction", "outbound", quiet=quiet)


def _visit(world: World, service: str, pod: str) -> str:
    """One request to a service, and the line of the log about its connection."""
    answer, lines = _logged(world, pod, 1, lambda: curl(world, CLIENT, f"{service}.shop"))
    if not reached(answer):
        raise ClaimFailed(f"{service} does not serve {CLIENT}: {answer.said}")
    return lines[-1]


def _asked(world: World) -> str:
    return _logged(world, "postgres", 1, lambda: _psql(world, "-c", WHO))[1][-1]


def _probe(world: World) -> tuple[float, int]:
    """Median microseconds of fresh connections to nginx, and the number that went direct."""
    median_us, lines = _logged(world, "nginx", PROBE_ROUNDS, lambda: probe(world, CLIENT))
    return median_us, sum(map(_is_direct, lines))


def _logged(
    world: World, pod: str, count: int, act: Callable[[], Result]
) -> tuple[Result, list[str]]:
    """Result of `act`, and the log lines of the `count` connections to the pod that it made."""
    before = len(_lines(world, pod))
    given = act()
    world.until(lambda: len(_lines(world, pod)) >= before + count, "the log has each connection")
    return given, _lines(world, pod)[before:]


def _lines(world: World, pod: str) -> list[str]:
    """The client's ended connections to a pod, as logged at its own side, oldest first."""
    wanted = ("src.workload=neighbour ", f"dst.workload={pod} ", "direction=outbound ")
    lines = world.log(f"ztunnel-{NODE}").splitlines()
    return [line for line in lines if all(each in line for each in wanted)]


def _is_direct(line: str) -> bool:
    return " path=direct" in line


def _tail(line: str) -> str:
    """The end of a line: bytes, duration and path."""
    return line[line.index("direction=") :]
