"""Kubeconfig files: contexts, several files as one, and what is refused with its place."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.kube.access import ClusterAccess
from control.kube.credentials import Password, Token, TokenFile
from control.kube.errors import AccessError
from control.kube.kubeconfig import find_access, load
from control.kube.plugin import Plugin

Fields = dict[str, Any]


def write(path: Path, cluster: Fields | None = None, user: Fields | None = None) -> Path:
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "prod",
        "contexts": [
            {"name": "prod", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
            {"name": "lost", "context": {"cluster": "gone", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "preferences": {},
    }
    path.write_text(yaml.safe_dump(value))
    return path


def read(
    tmp_path: Path, cluster: Fields | None = None, user: Fields | None = None
) -> ClusterAccess:
    return load({}, write(tmp_path / "config", cluster, user)).access({})


def test_the_current_context_is_taken(tmp_path: Path) -> None:
    access = read(tmp_path)
    assert (access.server, access.namespace, access.name) == ("https://api:6443", "shop", "prod")
    assert access.trust.authority is None


def test_every_credential_has_its_kind(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path, user={"token": "x"}).credentials, Token)
    assert isinstance(read(tmp_path, user={"token": "x", "tokenFile": "t"}).credentials, TokenFile)
    assert isinstance(read(tmp_path, user={"username": "a", "password": "b"}).credentials, Password)
    plugin = {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    assert isinstance(read(tmp_path, user={"exec": plugin}).credentials, Plugin)


def test_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    user = {"client-certificate": "pki/a.crt", "client-key": "/abs/a.key"}
    access = read(tmp_path, {"certificate-authority": "ca.pem"}, user)
    assert access.trust.authority is not None
    assert access.trust.authority.path == tmp_path / "ca.pem"
    assert access.trust.own is not None
    assert access.trust.own.certificate.path == tmp_path / "pki/a.crt"
    assert access.trust.own.key.path == Path("/abs/a.key")


def test_data_wins_over_a_path(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    access = read(tmp_path, {"certificate-authority": "x", "certificate-authority-data": data})
    assert access.trust.authority is not None
    assert access.trust.authority.read() == b"PEM"


def test_the_other_fields_of_a_cluster(tmp_path: Path) -> None:
    access = read(
        tmp_path,
        {
            "insecure-skip-tls-verify": True,
            "tls-server-name": "kubernetes",
            "proxy-url": "http://proxy:1",
        },
    )
    assert access.trust.is_insecure
    assert access.trust.server_name == "kubernetes"
    assert access.proxy == "http://proxy:1"


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"server": "api"}, {}, "'c': server: 'api' is no URL"),
        ({"proxy-url": "socks5://x:1"}, {}, "'c': proxy-url.*no SOCKS"),
        ({"certificate-authority-data": "%%"}, {}, "authority-data is no base64"),
        ({"insecure-skip-tls-verify": True, "certificate-authority": "x"}, {}, "beside"),
        ({"insecure-skip-tls-verify": "yes"}, {}, "clusters"),
        ({}, {"client-certificate": "x"}, "'u': client-certificate and client-key"),
        ({}, {"as": "admin"}, "'u': impersonation"),
        ({}, {"as-groups": ["admin"]}, "'u': impersonation"),
        ({}, {"auth-provider": {"name": "gcp"}}, "'u': auth-provider"),
        ({}, {"exec": {"command": "x"}}, "'u': exec.apiVersion"),
        ({}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}, "exec.command"),
        (
            {},
            {
                "exec": {
                    "command": "x",
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "interactiveMode": "Always",
                }
            },
            "interactiveMode Always",
        ),
        ({}, {"token": 12}, "users"),
        ({}, {"token": "a\nb"}, "'u': token holds no token"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused(
    tmp_path: Path, cluster: Fields, user: Fields, words: str
) -> None:
    with pytest.raises(AccessError, match=words):
        read(tmp_path, cluster, user)


def test_a_context_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    config = load({}, write(tmp_path / "config"))
    with pytest.raises(AccessError, match="no context 'x'; there are: lost, prod"):
        config.access({}, "x")
    with pytest.raises(AccessError, match="no cluster 'gone'"):
        config.access({}, "lost")


def test_of_several_files_the_first_word_counts(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"server": "https://first"})
    second = write(tmp_path / "b", {"server": "https://second"})
    env = {"KUBECONFIG": f"{tmp_path}/missing:{first}:{second}"}
    assert load(env).access(env).server == "https://first"
    with pytest.raises(AccessError, match="no such file"):
        load({"KUBECONFIG": f"{tmp_path}/missing"})


def test_the_users_own_file_is_the_last_resort(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", {"server": "https://home"})
    assert find_access({"HOME": str(tmp_path)}).server == "https://home"


def test_in_a_pod_the_kubelets_access_is_taken_unless_a_file_is_named(tmp_path: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert find_access(env, write(tmp_path / "config")).name == "prod"
    with pytest.raises(AccessError, match="service account token"):
        find_access(env)


@pytest.mark.parametrize("text", ["[", "- a", "3", "contexts: 3", "\x00", "a: &a [*a]"])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(AccessError):
        load({}, path).access({})


def test_a_relative_plugin_stands_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bin" / "plugin"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\necho \'{"apiVersion":"client.authentication.k8s.io/v1",'
        '"kind":"ExecCredential","status":{"token":"t"}}\'\n'
    )
    path.chmod(0o755)
    plugin = {"command": "bin/plugin", "apiVersion": "client.authentication.k8s.io/v1"}
    proof = asyncio.run(read(tmp_path, user={"exec": plugin}).credentials.proof())
    assert proof.authorization == "Bearer t"
