"""The access of a pod, and the proxy that the environment asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.kube.access import checked_proxy, checked_server, in_cluster, proxy_for
from control.kube.errors import AccessError

ENV = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "namespace").write_text("tulle-system")
    return tmp_path


def test_a_pod_has_all_it_needs(files: Path) -> None:
    access = in_cluster(ENV, files)
    assert (access.server, access.namespace) == ("https://10.96.0.1:443", "tulle-system")
    assert access.trust.authority is not None
    assert access.trust.authority.path == files / "ca.crt"


def test_an_ipv6_service_address_is_bracketed(files: Path) -> None:
    env = {**ENV, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert in_cluster(env, files).server == "https://[fd00::1]:443"


def test_the_token_is_read_again_when_the_kubelet_has_replaced_it(files: Path) -> None:
    credentials = in_cluster(ENV, files).credentials
    assert asyncio.run(credentials.proof()).authorization == "Bearer first"
    (files / "next").write_text("second")
    (files / "next").rename(files / "token")
    assert asyncio.run(credentials.proof()).authorization == "Bearer second"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_pod_without_a_token_says_so(files: Path, missing: str) -> None:
    (files / missing).unlink()
    with pytest.raises(AccessError, match="automountServiceAccountToken"):
        in_cluster(ENV, files)


def test_outside_of_a_cluster_it_says_so() -> None:
    with pytest.raises(AccessError, match="not in a cluster"):
        in_cluster({})


@pytest.mark.parametrize(
    ("server", "without", "used"),
    [
        ("https://api.example:6443", "", True),
        ("https://api.example:6443", "other, .example", False),
        ("https://api.example:6443", "api.example:6443", False),
        ("https://api.example:6443", "*.example", False),
        ("https://notexample:6443", "example", True),
        ("https://10.96.0.1", "10.96.0.0/12", False),
        ("https://10.96.0.1", "10.97.0.0/16", True),
        ("https://[fd00::1]", "fd00::/8", False),
        ("https://10.96.0.1", "*", False),
        ("https://127.0.0.1:6443", "", False),
        ("https://localhost:6443", "", False),
        ("http://api.example", "", False),  # that is HTTP_PROXY's
    ],
)
def test_the_proxy_of_the_environment(server: str, without: str, used: bool) -> None:
    env = {"HTTPS_PROXY": "proxy:3128", "no_proxy": without}
    assert proxy_for(server, env) == ("http://proxy:3128" if used else None)


@pytest.mark.parametrize(
    "url", ["", "api:6443", "ftp://x", "https://", "https://u@x", "https://x:y"]
)
def test_a_server_that_is_no_url_is_refused_with_its_place(url: str) -> None:
    with pytest.raises(AccessError, match="cluster prod"):
        checked_server(url, "cluster prod")


def test_a_path_of_a_server_stays() -> None:
    assert checked_server("https://rancher/k8s/c-1/", "x") == "https://rancher/k8s/c-1"


def test_a_socks_proxy_is_refused() -> None:
    with pytest.raises(AccessError, match="no SOCKS"):
        checked_proxy("socks5://x:1080", "proxy-url")
