"""Step of the tour: a waypoint before a service, and what layer 7 adds."""

from __future__ import annotations

import json
from collections import Counter

from agent.lab.tour import routes
from agent.lab.tour.traffic import reached
from agent.lab.tour.world import CommandResult, World

SHOPPER, NEIGHBOUR = "shop/shopper", "shop/neighbour"
REQUESTS = 200
# Four standard deviations around a share of 20 in a hundred.
CANARY_LEAST, CANARY_MOST = 18, 63
CODE = ("-o", "/dev/null", "-w", "%{http_code}")


def waypoint(world: World) -> None:
    with world.report.step("8. Layer 7: stock Envoy as a waypoint before reviews"):
        world.tulle("lab", "label", "service", "reviews", "-n", "shop", routes.USE)
        _until_through(world)
        _canary(world)
        _rules(world)
        _who_may(world)
        world.tulle("lab", "label", "service", "reviews", "-n", "shop", "istio.io/use-waypoint-")
        own = {world.address(SHOPPER), world.address(SHOPPER, 6)}
        world.until(
            lambda: _seen_client(_get(world, SHOPPER, "reviews.shop")) in own,
            "layer 4 alone carries it again",
        )
        world.report.claim(True, "the label taken away: callers are connected as before")


def _until_through(world: World) -> None:
    at = {world.address("shop/waypoint"), world.address("shop/waypoint", 6)}
    world.until(
        lambda: _seen_client(_get(world, SHOPPER, "reviews.shop")) in at,
        "requests pass the waypoint",
        timeout_s=30.0,
    )
    for pod in (SHOPPER, NEIGHBOUR):
        answer = _get(world, pod, "reviews.shop")
        world.report.claim(reached(answer), f"{pod} is served through it", answer.said)
        address = world.address("shop/reviews-v1")
        answer = _get(world, pod, f"{address}:9080")
        text = f"{pod} is refused at the pod's own address: no way around it"
        world.report.claim(not reached(answer), text, answer.said)


def _canary(world: World) -> None:
    world.apply(routes.CANARY)
    world.until(lambda: _versions(world, 20)["v3"] == 0, "the route takes hold")
    found = _versions(world, REQUESTS)
    world.report.claim(
        CANARY_LEAST <= found["v2"] <= CANARY_MOST and found["v1"] + found["v2"] == REQUESTS,
        f"weights 80 and 20: of {REQUESTS} requests {found['v1']} met v1, {found['v2']} met v2",
        str(dict(found)),
    )
    answer = _get(world, SHOPPER, "reviews.shop", "-H", "x-version: 2")
    world.report.claim(_version(answer) == "v2", "with x-version: 2 it is v2", answer.said)


def _rules(world: World) -> None:
    codes = [_code(world, "http://reviews.shop/flaky") for _ in range(10)]
    world.report.claim(
        codes == ["200"] * 10, "a server that fails each second time: retried", " ".join(codes)
    )
    code = _code(world, "http://reviews.shop/slow")
    world.report.claim(code == "504", "one that takes 3 s: given up after 0.5 s", code)
    moved = world.ask(SHOPPER, "curl", "-s", *CODE, "http://reviews.shop/old")
    world.report.claim(moved.out == "301", "an old path: redirected", moved.said)


def _who_may(world: World) -> None:
    world.apply(routes.READERS)
    world.until(
        lambda: _code(world, "http://reviews.shop/", NEIGHBOUR) == "403", "the policy takes hold"
    )
    answer = _get(world, SHOPPER, "reviews.shop")
    world.report.claim(reached(answer), "the shopper may GET", answer.said)
    code = _code(world, "http://reviews.shop/", SHOPPER, "-X", "DELETE")
    world.report.claim(code == "403", "… and not DELETE", code)
    said = world.tulle("routes", "explain", "GET", "http://reviews.shop/", "--as", "shop/shopper")
    world.report.show(said)
    world.report.claim("allowed by shop/readers" in said, "explained: the policy is named", said)


def _versions(world: World, count: int) -> Counter[str]:
    """Versions of reviews that answered so many requests."""
    script = f"for i in $(seq {count}); do curl -s -m 5 http://reviews.shop/; done"
    answer = world.ask(SHOPPER, "sh", "-c", script)
    return Counter(
        str(json.loads(line)["version"]) for line in answer.out.splitlines() if line.startswith("{")
    )


def _get(world: World, pod: str, host: str, *more: str) -> CommandResult:
    return world.ask(pod, "curl", "-sS", "-m", "5", *more, f"http://{host}/")


def _code(world: World, url: str, pod: str = SHOPPER, *more: str) -> str:
    return world.ask(pod, "curl", "-s", "-m", "8", *CODE, *more, url).out


def _version(answer: CommandResult) -> str:
    try:
        return str(json.loads(answer.out)["version"])
    except (ValueError, KeyError):
        return ""


def _seen_client(answer: CommandResult) -> str:
    try:
        return str(json.loads(answer.out)["client"])
    except (ValueError, KeyError):
        return ""
