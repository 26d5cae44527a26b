"""Kubeconfig files → the way to a cluster. Every field is honoured or refused, none is passed over
in silence when it would change who we are or whom we trust."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import yaml

from control.kube.access import ClusterAccess, checked_proxy, checked_server, in_cluster, proxy_for
from control.kube.credentials import Anonymous, KubeCredentials, Password, Token, TokenFile
from control.kube.errors import AccessError
from control.kube.plugin import API_VERSIONS, Command, Plugin
from control.kube.trust import KeyPair, Pem, Trust

FILE_BYTES_MAX = 8 * 1024 * 1024
FILES_MAX = 64


class _ClusterFields(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _EnvVariable(msgspec.Struct):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, rename="camel"):
    command: str = ""
    args: list[str] | None = None
    env: list[_EnvVariable] | None = None
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class _UserFields(msgspec.Struct, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    username: str = ""
    password: str = ""
    exec: _Exec | None = None
    auth_provider: Any = None
    impersonate: str = msgspec.field(default="", name="as")
    impersonate_uid: str = msgspec.field(default="", name="as-uid")
    impersonate_groups: list[str] | None = msgspec.field(default=None, name="as-groups")


class _ContextFields(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _Cluster(msgspec.Struct):
    name: str
    cluster: _ClusterFields | None = None


class _User(msgspec.Struct):
    name: str
    user: _UserFields | None = None


class _Context(msgspec.Struct):
    name: str
    context: _ContextFields | None = None


class _File(msgspec.Struct):
    current: str = msgspec.field(default="", name="current-context")
    contexts: list[_Context] | None = None
    clusters: list[_Cluster] | None = None
    users: list[_User] | None = None


class _Named(Protocol):
    name: str


_AnyNamed = TypeVar("_AnyNamed", bound=_Named)


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry, and the file that it stands in: relative paths are meant from there."""

    file: Path
    entry: Any

    @property
    def where(self) -> str:
        return f"{self.file}: {self.entry.name!r}"

    def path(self, text: str) -> Path:
        return self.file.parent / text  # an absolute one stays as it is


class Kubeconfig:
    """Several files as one: of entries with the same name the first counts, as for kubectl."""

    def __init__(self, files: Iterable[tuple[Path, _File]]) -> None:
        self.current = ""
        self._contexts: dict[str, _Found] = {}
        self._clusters: dict[str, _Found] = {}
        self._users: dict[str, _Found] = {}
        for path, file in files:
            self.current = self.current or file.current
            _take(self._contexts, path, file.contexts)
            _take(self._clusters, path, file.clusters)
            _take(self._users, path, file.users)

    @property
    def contexts(self) -> tuple[str, ...]:
        return tuple(self._contexts)

    def access(self, env: Mapping[str, str], context: str = "") -> ClusterAccess:
        """The access of a context, of the current one without a name. Raises AccessError."""
        name = context or self.current
        if not name:
            raise AccessError(f"kubeconfig names no current-context; {self._offers()}")
        chosen = self._contexts.get(name)
        if chosen is None:
            raise AccessError(f"kubeconfig has no context {name!r}; {self._offers()}")
        fields: _ContextFields = chosen.entry.context or _ContextFields()
        cluster = self._clusters.get(fields.cluster)
        if cluster is None:
            raise AccessError(f"{chosen.where}: no cluster {fields.cluster!r} in kubeconfig")
        user = self._users.get(fields.user)
        if user is None and fields.user:
            raise AccessError(f"{chosen.where}: no user {fields.user!r} in kubeconfig")
        return _access(name, fields, cluster, user, env)

    def _offers(self) -> str:
        return f"there are: {', '.join(sorted(self._contexts)) or 'none'}"


def _take(known: dict[str, _Found], path: Path, entries: list[_AnyNamed] | None) -> None:
    for each in entries or ():
        known.setdefault(each.name, _Found(path, each))


def load(env: Mapping[str, str], file: Path | None = None) -> Kubeconfig:
    """The given file, else those of KUBECONFIG, else ~/.kube/config. Raises AccessError."""
    if file is not None:
        return Kubeconfig([(file, _read(file))])
    named = [Path(each) for each in env.get("KUBECONFIG", "").split(":") if each]
    if not named:
        home = Path(env.get("HOME") or "/root") / ".kube" / "config"
        return Kubeconfig([(home, _read(home))])
    found = [each for each in named[:FILES_MAX] if each.exists()]  # kubectl passes over others
    if not found:
        raise AccessError(f"KUBECONFIG={env['KUBECONFIG']}: no such file")
    return Kubeconfig([(each, _read(each)) for each in found])


def find_access(
    env: Mapping[str, str], file: Path | None = None, context: str = ""
) -> ClusterAccess:
    """A kubeconfig if one is named or wanted, else the access that pods have, else the kubeconfig
    of the user. Raises AccessError."""
    is_wanted = file is not None or bool(context) or bool(env.get("KUBECONFIG"))
    if not is_wanted and env.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(env)
    return load(env, file).access(env, context)


def _read(path: Path) -> _File:
    try:
        with open(path, "rb") as handle:
            data = handle.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise AccessError(f"kubeconfig {path}: {exc.strerror}") from exc
    if len(data) > FILE_BYTES_MAX:
        raise AccessError(f"kubeconfig {path}: over {FILE_BYTES_MAX} bytes")
    try:
        value = _without_nulls(yaml.safe_load(data))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise AccessError(f"kubeconfig {path} is no YAML: {' '.join(str(exc).split())}") from exc
    try:
        return msgspec.convert(value or {}, _File)
    except msgspec.ValidationError as exc:
        raise AccessError(f"kubeconfig {path}: {exc}") from exc


def _without_nulls(value: Any) -> Any:
    """A null means an absent field, as in Go."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _access(
    name: str, fields: _ContextFields, cluster: _Found, user: _Found | None, env: Mapping[str, str]
) -> ClusterAccess:
    about: _ClusterFields = cluster.entry.cluster or _ClusterFields()
    server = checked_server(about.server, f"{cluster.where}: server")
    authority = _pem(
        cluster, about.certificate_authority, about.certificate_authority_data, "authority"
    )
    if about.insecure_skip_tls_verify and authority is not None:
        raise AccessError(
            f"{cluster.where}: insecure-skip-tls-verify beside a certificate-authority"
        )
    proxy = proxy_for(server, env)
    if about.proxy_url:
        proxy = checked_proxy(about.proxy_url, f"{cluster.where}: proxy-url")
    return ClusterAccess(
        server=server,
        trust=Trust(
            authority=authority,
            own=None if user is None else _own(user),
            is_insecure=about.insecure_skip_tls_verify,
            server_name=about.tls_server_name or None,
        ),
        credentials=Anonymous() if user is None else _credentials(user, cluster, env),
        namespace=fields.namespace or "default",
        proxy=proxy,
        name=name,
    )


def _own(user: _Found) -> KeyPair | None:
    about: _UserFields = user.entry.user or _UserFields()
    certificate = _pem(
        user, about.client_certificate, about.client_certificate_data, "client-certificate"
    )
    key = _pem(user, about.client_key, about.client_key_data, "client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise AccessError(f"{user.where}: client-certificate and client-key go together")
    return KeyPair(certificate, key)


def _pem(found: _Found, path: str, data: str, field: str) -> Pem | None:
    """Data wins over a path, as for kubectl."""
    if data:
        try:
            return Pem(base64.b64decode("".join(data.split()), validate=True))
        except (binascii.Error, ValueError) as exc:
            raise AccessError(f"{found.where}: {field}-data is no base64: {exc}") from exc
    return Pem(path=found.path(path)) if path else None


def _credentials(user: _Found, cluster: _Found, env: Mapping[str, str]) -> KubeCredentials:
    about: _UserFields = user.entry.user or _UserFields()
    if about.impersonate or about.impersonate_uid or about.impersonate_groups:
        raise AccessError(f"{user.where}: impersonation (as, as-groups, as-uid) is not supported")
    if about.auth_provider is not None:
        raise AccessError(
            f"{user.where}: auth-provider is no longer supported, as in kubectl 1.26 and later; "
            "an exec plugin takes its place"
        )
    if about.exec is not None:
        if about.token or about.token_file or about.username:
            raise AccessError(f"{user.where}: exec beside another credential")
        return Plugin(_command(about.exec, user, cluster), env)
    if about.token_file:
        return TokenFile(user.path(about.token_file))
    if about.token:
        return Token(about.token, f"{user.where}: token")
    if about.username:
        return Password(about.username, about.password)
    return Anonymous()


def _command(about: _Exec, user: _Found, cluster: _Found) -> Command:
    if not about.command:
        raise AccessError(f"{user.where}: exec.command is missing")
    if about.api_version not in API_VERSIONS:
        raise AccessError(
            f"{user.where}: exec.apiVersion {about.api_version!r} is not one of "
            f"{', '.join(API_VERSIONS)}"
        )
    if about.interactive_mode not in ("", "Never", "IfAvailable"):
        raise AccessError(
            f"{user.where}: exec.interactiveMode {about.interactive_mode}: nobody can answer here"
        )
    program = about.command
    if "/" in program:  # otherwise it is found by PATH
        program = str(user.path(program).absolute())
    return Command(
        program=program,
        arguments=tuple(about.args or ()),
        env={each.name: each.value for each in about.env or ()},
        api_version=about.api_version,
        install_hint=about.install_hint,
        cluster=_cluster_info(cluster) if about.provide_cluster_info else None,
    )


def _cluster_info(cluster: _Found) -> dict[str, Any]:
    about: _ClusterFields = cluster.entry.cluster or _ClusterFields()
    found: dict[str, Any] = {"server": about.server}
    authority = _pem(
        cluster, about.certificate_authority, about.certificate_authority_data, "authority"
    )
    if authority is not None:
        found["certificate-authority-data"] = base64.b64encode(authority.read()).decode()
    if about.tls_server_name:
        found["tls-server-name"] = about.tls_server_name
    if about.insecure_skip_tls_verify:
        found["insecure-skip-tls-verify"] = True
    if about.proxy_url:
        found["proxy-url"] = about.proxy_url
    return found
