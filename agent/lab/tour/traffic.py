"""The same traffic before and after enrolment: real clients, both families, both distances."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.lab.tour.report import ClaimFailed
from agent.lab.tour.world import MARKER, CommandResult, World

CURL = ("curl", "-sS", "--max-time", "8")
PROBE = str(Path(__file__).with_name("probe.py"))
PROBE_ROUNDS = 60
PSQL = ("env", "PGCONNECT_TIMEOUT=8", "psql", "-U", "postgres", "-At", "-d", "postgres")
QUERY = f"select '{MARKER}', host(inet_client_addr())"


@dataclass(frozen=True, slots=True)
class Visit:
    """One client call, and the way to find the client's address in the answer."""

    title: str
    command: tuple[str, ...]
    seen_client: Callable[[str], str]
    family: int = 4


def visits(world: World) -> list[Visit]:
    database4 = world.address("shop/postgres")
    cache6 = world.address("shop/redis", 6)
    return [
        Visit("curl → nginx", (*CURL, "-4", "http://nginx.shop/"), _after("nginx saw ")),
        Visit("curl → nginx, IPv6", (*CURL, "-6", "http://nginx.shop/"), _after("nginx saw "), 6),
        Visit("curl → productpage", (*CURL, "-4", "http://productpage.shop/"), _json_client),
        Visit("redis-cli → redis", _redis("redis.shop"), _redis_client),
        Visit("redis-cli → redis, IPv6", _redis(cache6), _redis_client, 6),
        Visit("psql → PostgreSQL", (*PSQL, "-h", database4, "-c", QUERY), _after("|")),
        # A name with both families: psql takes IPv6 first.
        Visit(
            "psql → PostgreSQL, IPv6", (*PSQL, "-h", "postgres.shop", "-c", QUERY), _after("|"), 6
        ),
    ]


def _redis(host: str) -> tuple[str, ...]:
    # CLIENT INFO came with Redis 6.2: ask for the number, and find it in the list of all.
    asked = f"ECHO {MARKER}\\nCLIENT ID\\nCLIENT LIST\\n"
    return ("sh", "-c", f"printf '{asked}' | redis-cli -h {host}")


def _after(mark: str) -> Callable[[str], str]:
    return lambda text: (text.partition(mark)[2].split() or [""])[0]


def _redis_client(text: str) -> str:
    number = re.search(r"^(\d+)$", text, re.MULTILINE)
    if number is None:
        return ""
    found = re.search(rf"^id={number[1]} addr=\[?([0-9a-f.:]+?)\]?:\d+ ", text, re.MULTILINE)
    return found.group(1) if found else ""


def _json_client(text: str) -> str:
    try:
        return str(json.loads(text)["client"])
    except (ValueError, KeyError):
        return ""


def visit_all(world: World, pods: tuple[str, ...]) -> list[tuple[str, Visit, CommandResult]]:
    """Every visit from every pod, side by side."""
    asked = [(pod, visit) for pod in pods for visit in visits(world)]
    answers = world.ask_all([(pod, visit.command) for pod, visit in asked])
    return [(pod, visit, answer) for (pod, visit), answer in zip(asked, answers, strict=True)]


def check_all(world: World, pods: tuple[str, ...], addresses: bool) -> None:
    """Claim that every visit succeeded and, with `addresses`, that servers saw the real client."""
    for pod, visit, answer in visit_all(world, pods):
        seen, real = visit.seen_client(answer.out), world.address(pod, visit.family)
        # A server that answers one of two questions with an error does not count as reached.
        works = answer.code == 0 and MARKER in answer.out and seen != ""
        if not addresses:
            world.report.claim(works, f"{pod}: {visit.title}", answer.said)
            continue
        text = f"{pod}: {visit.title}; the server saw {seen or 'nobody'}"
        world.report.claim(works and seen == real, text, "" if works else answer.said)


def probe(world: World, pod: str) -> float:
    """Median microseconds of a fresh connection, a request and the first bytes of the answer."""
    answer = world.ask(pod, "python3", PROBE, "nginx.shop", "80", str(PROBE_ROUNDS))
    if answer.code != 0:
        raise ClaimFailed(f"{pod} could not measure {PROBE_ROUNDS} connections: {answer.said}")
    return float(statistics.median(json.loads(answer.out)))


def curl(world: World, pod: str, host: str, timeout_s: int = 3) -> CommandResult:
    return world.ask(pod, "curl", "-sS", "--max-time", str(timeout_s), f"http://{host}/")


def reached(answer: CommandResult) -> bool:
    return answer.code == 0 and MARKER in answer.out
