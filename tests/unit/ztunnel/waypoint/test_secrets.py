"""One stream for secrets: each is sent when it is asked for, and again when it has changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control.kit.errors import WireError
from control.wire import discovery_pb2 as pb
from control.wire import secret_pb2
from control.wire.types import CLUSTER_TYPE, SECRET_TYPE
from tests.support.engine.meshes import spiffe
from ztunnel.identity.csr import Issued
from ztunnel.waypoint.secrets import NAMES_MAX, Secret, SecretStream, secrets_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def issued(key: str = "KEY", roots: str = "ROOTS") -> Issued:
    return Issued(spiffe("web"), key, ("LEAF\n", "MORE\n"), roots, 1, NOW, NOW + timedelta(1), NOW)


def request(*names: str, without: tuple[str, ...] = (), **fields: object) -> bytes:
    made = pb.DeltaDiscoveryRequest(
        type_url=SECRET_TYPE,
        resource_names_subscribe=names,
        resource_names_unsubscribe=without,
        **fields,  # type: ignore[arg-type]
    )
    return made.SerializeToString()


def sent(data: bytes | None) -> tuple[list[str], list[str]]:
    """Names that came and names that are absent."""
    assert data is not None
    response = pb.DeltaDiscoveryResponse.FromString(data)
    return [each.name for each in response.resources], list(response.removed_resources)


def test_the_secrets_have_the_key_the_whole_chain_and_the_roots() -> None:
    made = secrets_of(issued())
    certificate = secret_pb2.Secret.FromString(made["default"].body).tls_certificate
    assert certificate.certificate_chain.inline_bytes == b"LEAF\nMORE\n"
    assert certificate.private_key.inline_bytes == b"KEY"
    roots = secret_pb2.Secret.FromString(made["ROOTCA"].body).validation_context
    assert roots.trusted_ca.inline_bytes == b"ROOTS"
    assert "KEY" not in repr(made)


def test_a_name_is_answered_once_and_again_when_it_has_changed() -> None:
    stream = SecretStream()
    stream.receive(request("default"))
    assert stream.answer({}) is None, "no certificate yet: nothing is said"
    first = secrets_of(issued())
    assert sent(stream.answer(first)) == (["default"], [])
    stream.receive(request(response_nonce="1"))
    assert stream.answer(first) is None
    other_roots = secrets_of(issued(roots="OTHER"))
    assert stream.answer(other_roots) is None, "it has not asked for the roots"
    stream.receive(request("ROOTCA"))
    assert sent(stream.answer(other_roots)) == (["ROOTCA"], [])
    assert sent(stream.answer(secrets_of(issued("KEY2", "OTHER")))) == (["default"], [])


def test_a_name_that_is_not_ours_is_absent_and_one_given_up_is_not_sent() -> None:
    stream = SecretStream()
    stream.receive(request("default", "strange"))
    assert sent(stream.answer(secrets_of(issued()))) == (["default"], ["strange"])
    stream.receive(request(without=("default",)))
    assert stream.answer(secrets_of(issued("KEY2"))) is None


def test_asking_again_on_a_stream_is_answered_even_with_what_it_has() -> None:
    secrets = secrets_of(issued())
    stream = SecretStream()
    versions = {"default": secrets["default"].version}
    stream.receive(request("default", initial_resource_versions=versions))
    assert sent(stream.answer(secrets)) == (["default"], [])


def test_a_refusal_is_told_and_the_secret_not_sent_again() -> None:
    stream = SecretStream()
    stream.receive(request("default"))
    secrets = secrets_of(issued())
    stream.answer(secrets)
    refusal = request(response_nonce="1", error_detail=pb.Status(message="bad key"))
    assert stream.receive(refusal) == "bad key"
    assert stream.answer(secrets) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        pb.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE).SerializeToString(),
        request(*(f"name-{number}" for number in range(NAMES_MAX + 1))),
    ],
)
def test_a_stream_that_breaks_the_protocol(data: bytes) -> None:
    with pytest.raises(WireError):
        SecretStream().receive(data)


def test_a_secret_shows_nothing() -> None:
    assert repr(Secret("1", b"PRIVATE")) == "Secret(1)"
