"""The parts that a control plane has only with an API server, wired."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.kube.access import ClusterAccess
from control.kube.trust import Trust
from control.model.address import parse_address
from control.server.callers.budget import source_tenant
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import NodeTokens, Undecided
from control.server.cluster import ClusterConfig, ClusterSide
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.xds.replicas import LABELS
from tests.support.account_tokens import account_token
from tests.support.manifests import pod
from tests.support.published import PublishedMesh

ACCESS = ClusterAccess("http://127.0.0.1:1", Trust())  # nobody listens

DAY = timedelta(hours=24)


def side(**changed: object) -> ClusterSide:
    values = {
        "access": ACCESS,
        "namespace": "tulle-system",
        "identity": "a",
        "audience": "istio-ca",
    }
    values |= {"accounts": ("tulle-ztunnel",), **changed}
    return ClusterSide(ClusterConfig(**values), Metrics(), SystemClock())  # type: ignore[arg-type]  # test shorthand


def test_the_ca_is_in_a_secret_unless_it_is_in_the_state_folder() -> None:
    stored = side(ca_secret="company").stored(Settings(trust_domain="td"), DAY, Path("/nowhere"))
    assert stored is not None
    assert (stored.namespace, stored.name, stored.trust_domain) == ("tulle-system", "company", "td")
    assert side(ca_in_state=True).stored(Settings(trust_domain="td"), DAY, Path("/nowhere")) is None


def test_a_token_of_an_account_is_asked_about(tmp_path: Path) -> None:
    async def ask() -> None:
        cluster = side()
        tokens = NodeTokens(b"k" * 32, "s", SystemClock())
        expires_s = SystemClock().now().timestamp() + 60
        async with cluster.client:
            known = cluster.know_callers(tmp_path, PublishedMesh(tmp_path).publisher)
            verifier = cluster.authenticator(tokens, known)
            await verifier.authenticate(account_token(expires_s), source_tenant("::1"))

    with pytest.raises(Undecided) as caught:
        asyncio.run(ask())
    assert caught.value.why is CallRefusal.REVIEWS_AWAY


def test_reports_are_told_to_the_marks(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    marks = side().mark_captures(mesh.captured, mesh.publisher, lambda node: True)
    assert mesh.captured.marks is marks
    assert mesh.captured.take("n1", {"u1": ()}) == {"u1"}
    mesh.captured.drop("n1", frozenset({"u1"}))
    assert not mesh.captured.has("n1", "u1")


def test_replicas_are_known_by_their_pods(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    found = side().replicas(mesh.publisher)
    assert found() == ()
    labels = ", ".join(f"{name}: {value}" for name, value in LABELS.items())
    ours = pod("a", "tulle-system", labels, address="10.9.0.1")
    theirs = pod("b", "shop", labels, address="10.9.0.2")
    mesh.publish(ours + theirs + pod("c", "tulle-system", address="10.9.0.3"))
    assert found() == (parse_address("10.9.0.1"),)


def test_nobody_leads_before_the_election(tmp_path: Path) -> None:
    cluster = side()
    cluster.writer(PublishedMesh(tmp_path).publisher, None)  # type: ignore[arg-type]  # asked later
    assert cluster.leader() == {"identity": "a", "leads": False, "leader": ""}
