"""The client's address, found in the answers of real servers."""

from __future__ import annotations

from typing import cast

import pytest

from agent.lab.tour import traffic
from agent.lab.tour.report import ClaimFailed
from agent.lab.tour.world import MARKER, CommandResult, World


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("tulle-marker\nnginx saw 10.71.1.2\n", "10.71.1.2"),
        ("nothing of the kind", ""),
    ],
)
def test_nginx_and_postgres_say_it_behind_a_mark(text: str, client: str) -> None:
    assert traffic._after("nginx saw ")(text) == client


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("marker\n3\nid=3 addr=10.71.1.2:40000 laddr=10.72.1.3:6379\n", "10.71.1.2"),
        ("marker\n3\nid=3 addr=[fd71:1::2]:40000 laddr=[fd71:2::3]:6379\n", "fd71:1::2"),
        ("3\nid=33 addr=10.1.1.1:1 cmd=client\nid=3 addr=10.71.1.2:2 cmd=client", "10.71.1.2"),
        ("3\nid=33 addr=10.1.1.1:1 cmd=client\n", ""),
        ("ERR unknown command\nid=3 addr=10.71.1.2:40000 cmd=client", ""),
    ],
)
def test_redis_says_it_in_the_line_with_our_own_number(text: str, client: str) -> None:
    assert traffic._redis_client(text) == client


def test_the_shop_says_it_in_json() -> None:
    assert traffic._json_client('{"client": "10.71.1.2"}') == "10.71.1.2"
    assert traffic._json_client("{}") == ""
    assert traffic._json_client("<html>") == ""


def test_an_answer_without_the_marker_did_not_come_from_the_server() -> None:
    assert traffic.reached(CommandResult(0, f"hello {MARKER}", ""))
    assert not traffic.reached(CommandResult(0, "hello", ""))
    assert not traffic.reached(CommandResult(7, MARKER, ""))


def test_a_probe_that_failed_ends_the_tour_with_its_words() -> None:
    class Refused:
        def ask(self, *_: str) -> CommandResult:
            return CommandResult(1, "", "connection 7: timed out")

    with pytest.raises(ClaimFailed, match=r"shop/neighbour .*: connection 7: timed out"):
        traffic.probe(cast("World", Refused()), "shop/neighbour")
