"""Node authentication with a real client, against an API server that judges as a recorded one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.trust import Trust
from control.server.callers.accounts import node_accounts
from control.server.callers.budget import source_tenant
from control.server.callers.outage import KnownCallers
from control.server.callers.refusals import CallRefusal
from control.server.callers.reviews import ClusterReviews, TokenReviews
from control.server.callers.revocations import Revocations
from control.server.callers.tokens import (
    Caller,
    EitherTokens,
    NodeTokens,
    Unauthenticated,
    Undecided,
)
from control.server.metrics import Metrics
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import too_many

NAMESPACE, PAYER = "tulle-system", source_tenant("127.0.0.1")
SUBJECT = "system:serviceaccount:istio-system:ztunnel"
NOWHERE = Path("/proc/nowhere/known")
OWN, NONE = NodeTokens(b"k" * 32, SUBJECT, SystemClock()), Revocations()


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kn1"}})
        for name in ("tulle-ztunnel", "default"):
            metadata = {"name": name, "namespace": NAMESPACE}
            server.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        metadata = {"name": "ztunnel-x", "namespace": NAMESPACE}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        server.put({**pod, "spec": {"nodeName": "kn1"}})
        yield server


def token(kube: KubeServer, account: str = "tulle-ztunnel", audience: str = "istio-ca") -> str:
    return kube.token(account, audience=audience, namespace=NAMESPACE, pod="ztunnel-x")


def ask(kube: KubeServer, *tokens: str, revoked: Revocations = NONE) -> list[Caller | CallRefusal]:
    """The answers of one process to these tokens, one after the other."""

    async def whole() -> list[Caller | CallRefusal]:
        accounts = node_accounts(NAMESPACE, ("tulle-ztunnel", "tulle-agent"), "istio-ca")
        async with KubeClient(ClusterAccess(kube.url, Trust())) as client:
            asks = ClusterReviews(client, accounts.audience)
            known = KnownCallers(NOWHERE, "here", accounts, lambda pod: "", SystemClock())
            reviews = TokenReviews(asks, accounts, known, metrics=Metrics(), clock=SystemClock())
            own = NodeTokens(b"k" * 32, SUBJECT, SystemClock(), lambda: revoked)
            door = EitherTokens(own, reviews)
            found: list[Caller | CallRefusal] = []
            for each in tokens:
                try:
                    found.append(await door.authenticate(each, PAYER))
                except (Unauthenticated, Undecided) as exc:
                    found.append(exc.why)
            return found

    return asyncio.run(whole())


def test_a_projected_token_speaks_for_its_pods_node(kube: KubeServer) -> None:
    subject = f"system:serviceaccount:{NAMESPACE}:tulle-ztunnel"
    good = token(kube)
    assert ask(kube, good, good) == [Caller("kn1", subject)] * 2
    assert kube.tokens.reviews == [good]


def test_a_token_of_our_own_is_taken_beside_it_and_asks_nobody(kube: KubeServer) -> None:
    made = OWN.issue("edge", timedelta(hours=1))
    assert ask(kube, made) == [Caller("edge", SUBJECT)]
    assert kube.tokens.reviews == []


def test_a_node_whose_tokens_are_revoked_has_none_of_either_kind(kube: KubeServer) -> None:
    revoked = Revocations(nodes={"kn1": int(SystemClock().now().timestamp()) + 60})
    assert ask(kube, token(kube), revoked=revoked) == [CallRefusal.TOKEN_REVOKED]


def test_tokens_for_others_of_others_and_of_nobody_are_refused(kube: KubeServer) -> None:
    head, claims, signature = token(kube).split(".")
    forged = ".".join((head, claims, "A" * len(signature)))
    refused = ask(
        kube, token(kube, audience="tulle-ca"), token(kube, account="default"), forged, "a.b.c"
    )
    assert refused == [
        CallRefusal.TOKEN_AUDIENCE,
        CallRefusal.TOKEN_SUBJECT,
        CallRefusal.TOKEN_REVIEW,
        CallRefusal.TOKEN_MALFORMED,
    ]
    assert kube.tokens.reviews == [forged], "the others could not be good, whoever signed them"


def test_a_pods_end_is_the_tokens(kube: KubeServer) -> None:
    made = token(kube)
    kube.remove("v1", "Pod", "ztunnel-x", NAMESPACE)
    assert ask(kube, made) == [CallRefusal.TOKEN_REVIEW]


def test_an_api_server_that_names_no_node_is_asked_for_the_pod(kube: KubeServer) -> None:
    made = token(kube)
    del kube.tokens.made[made]["kubernetes.io"]["node"]
    assert [each.node for each in ask(kube, made) if isinstance(each, Caller)] == ["kn1"]


@pytest.mark.parametrize("trouble", ["busy", "cut", "away"])
def test_a_token_is_put_off_while_the_api_server_cannot_answer(
    kube: KubeServer, trouble: str
) -> None:
    made = token(kube)
    if trouble == "away":
        with kube.away():
            assert ask(kube, made) == [CallRefusal.REVIEWS_AWAY]
    else:
        refusal = too_many(1) if trouble == "busy" else None
        kube.fail("POST .*tokenreviews", refusal, cut=trouble == "cut")
        assert ask(kube, made) == [CallRefusal.REVIEWS_AWAY]
