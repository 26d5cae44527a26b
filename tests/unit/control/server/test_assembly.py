"""The parts put together: what is made on disk, what is kept, and what cannot start."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.kit.errors import ConfigError
from control.server.assembly import STATE_NAME, Plane, PlaneConfig, assemble
from control.server.callers.budget import node_tenant
from control.server.callers.door import AdmittedCall
from control.server.callers.tokens import Caller, subject_of
from control.server.compile.settings import Settings
from control.wire import certificates_pb2 as pb
from tests.support.calls import Aborted, Call
from tests.support.manifests import pod


def config(folder: Path, **changed: object) -> PlaneConfig:
    (folder / "manifests").mkdir(exist_ok=True)
    values: dict[str, object] = {
        "manifests": folder / "manifests",
        "state": folder / "state",
        "listen": ("127.0.0.1:0",),
        "dns_names": ("control.test",),
        "admin": "",
        "metrics": "",
        "cert_ttl_max": timedelta(hours=1),
        "settings": Settings(),
    }
    return PlaneConfig(**{**values, **changed})  # type: ignore[arg-type]  # test shorthand


def test_it_starts_empty_and_keeps_its_keys(tmp_path: Path) -> None:
    first = assemble(config(tmp_path))
    second = assemble(config(tmp_path))
    assert first.authorities.current == second.authorities.current
    state = tmp_path / "state"
    assert {each.name for each in state.iterdir()} >= {"ca", "last-good"}
    keys = [each for each in state.rglob("*") if each.is_file() and b"PRIVATE" in each.read_bytes()]
    assert keys
    assert all(each.stat().st_mode & 0o077 == 0 for each in keys)


def test_without_manifests_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        assemble(config(tmp_path, manifests=tmp_path / "nowhere"))


def test_a_folder_that_is_away_is_waited_for_when_its_state_was_kept(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STATE_NAME).touch()
    assert assemble(config(tmp_path, manifests=tmp_path / "nowhere")).source.name


def test_without_any_source_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither manifests nor an API server"):
        assemble(config(tmp_path, manifests=None))


def test_a_broken_key_on_disk_is_no_reason_for_a_new_one(tmp_path: Path) -> None:
    assemble(config(tmp_path))
    for each in (tmp_path / "state" / "ca").iterdir():
        each.write_bytes(b"broken")
    with pytest.raises(ConfigError):
        assemble(config(tmp_path))


def sign(plane: Plane, node: str, uri: str) -> list[str]:
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    text = csr.public_bytes(serialization.Encoding.PEM).decode()
    message = pb.IstioCertificateRequest(csr=text, validity_duration=60)
    message.metadata.update({"ImpersonatedIdentity": uri})
    admitted = AdmittedCall(Caller(node, "ztunnel"), node_tenant(node), "10.0.0.1:40000")
    call = plane.csr.create(message.SerializeToString(), admitted, Call())
    return list(pb.IstioCertificateResponse.FromString(asyncio.run(call)).cert_chain)


def test_certificates_follow_the_published_mesh(tmp_path: Path) -> None:
    """The parts are wired: manifests decide which node may have which identity."""
    plane = assemble(config(tmp_path))
    (tmp_path / "manifests" / "a.yaml").write_text(pod(spec="serviceAccountName: web"))
    uri = "spiffe://cluster.local/ns/shop/sa/web"
    with pytest.raises(Aborted):
        sign(plane, "n1", uri)

    async def publish() -> None:
        async with plane.source.opened() as snapshots:
            plane.publisher.offer(await anext(snapshots))
        plane.publisher.publish()

    asyncio.run(publish())
    assert len(sign(plane, "n1", uri)) == 2
    with pytest.raises(Aborted):
        sign(plane, "n2", uri)


def test_a_token_is_for_the_ztunnels_account() -> None:
    assert subject_of("mesh") == "system:serviceaccount:mesh:ztunnel"


def test_the_ports_names_are_those_given_and_the_addresses_it_listens_on(tmp_path: Path) -> None:
    config = PlaneConfig(
        manifests=tmp_path,
        state=tmp_path,
        listen=("10.0.0.1:1", "[fd00::1]:1", "[::]:2", "0.0.0.0:3"),
        dns_names=("a",),
        admin="",
        metrics="",
        cert_ttl_max=timedelta(hours=1),
        settings=Settings(),
    )
    assert config.serving_names() == ["a", "10.0.0.1", "fd00::1", "127.0.0.1", "::1"]
