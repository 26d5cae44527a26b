"""Events on policies that are refused: one for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.kube.client import KubeClient
from control.server.leader.conditions import ACCEPTED, Conditions, PolicyCondition
from control.server.leader.ledger import Target
from control.server.leader.notices import NOTE_BYTES_MAX, NOTICES_MAX, Notice, NoticeDuty
from tests.support.clock import FakeClock
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import Json

P = Target("AuthorizationPolicy", "shop", "p", "u1")


def refused(message: str = "rules[0] is not understood") -> Conditions:
    return (PolicyCondition(ACCEPTED, False, "Invalid", message),)


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        yield server


def write(kube: KubeServer, *notices: tuple[Target, Notice | None], who: str = "a") -> list[Json]:
    """The events that are there after these writes."""

    async def act(client: KubeClient) -> None:
        duty = NoticeDuty(client, FakeClock(), who, dict)
        assert await duty.look() == {}
        for target, notice in notices:
            await duty.write(target, notice)

    with_client(kube, act)
    return [each for key, each in kube.store.objects.items() if key[0] == ("", "events")]


def test_only_what_is_refused_has_a_notice_and_not_without_end() -> None:
    good = (PolicyCondition(ACCEPTED, True, "Accepted", ""),)
    many = {Target("AuthorizationPolicy", "shop", str(each)): refused() for each in range(1000)}
    now: dict[Target, Conditions] = {P: good, **many}
    duty = NoticeDuty(None, FakeClock(), "a", lambda: now)  # type: ignore[arg-type]  # asks nobody
    wanted = duty.wanted()
    assert P not in wanted
    assert len(wanted) == NOTICES_MAX
    now = {P: refused("x" * 5000)}
    assert duty.wanted() == {P: Notice("Invalid", "x" * NOTE_BYTES_MAX)}
    now = {P: refused("x" + "ü" * 5000)}
    assert duty.wanted() == {P: Notice("Invalid", "x" + "ü" * (NOTE_BYTES_MAX // 2 - 1))}


def test_the_name_of_an_event_is_one_that_the_api_takes(kube: KubeServer) -> None:
    long = Target(P.kind, P.namespace, "a" * 199 + "-b", "u1")
    (made,) = write(kube, (long, Notice("Invalid", "no")))
    assert made["metadata"]["name"].startswith("a" * 199 + ".")


def test_an_event_is_about_its_policy(kube: KubeServer) -> None:
    (made,) = write(kube, (P, Notice("Invalid", "rules[0] is not understood")))
    assert made["regarding"]["uid"] == "u1"
    assert made["regarding"]["kind"] == "AuthorizationPolicy"
    assert (made["type"], made["reason"]) == ("Warning", "Invalid")
    assert made["note"] == "rules[0] is not understood"


def test_the_same_is_said_once_by_whoever_leads_and_something_else_anew(kube: KubeServer) -> None:
    notice = Notice("Invalid", "no")
    write(kube, (P, notice))
    assert len(write(kube, (P, notice), (P, None), who="b")) == 1
    assert len(write(kube, (P, Notice("Invalid", "still no")))) == 2
    again = Target(P.kind, P.namespace, P.name, "u2")
    assert len(write(kube, (again, notice))) == 3
