"""The way to one cluster: its address, how to trust it, and how to say who we are."""

from __future__ import annotations

import hashlib
import ipaddress
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control.kube.credentials import Anonymous, KubeCredentials, TokenFile
from control.kube.errors import AccessError
from control.kube.trust import Pem, Trust

IN_CLUSTER = "in-cluster"
POD_FILES = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """`server` has no slash at its end. `name` is for people: the context, or "in-cluster"."""

    server: str
    trust: Trust
    credentials: KubeCredentials = field(default_factory=Anonymous)
    namespace: str = "default"
    proxy: str | None = None
    name: str = ""

    @property
    def origin(self) -> str:
        """A word for this cluster: what was read from it is nothing for another one."""
        authority = self.trust.authority
        pem = authority.read() if authority is not None else b""
        return f"{self.server} {hashlib.sha256(pem).hexdigest()[:16]}"


def in_cluster(env: Mapping[str, str], files: Path = POD_FILES) -> ClusterAccess:
    """The access that the kubelet gives to every pod. Raises AccessError outside of one."""
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise AccessError(
            "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
        )
    token, authority = files / "token", files / "ca.crt"
    for each in (token, authority):
        if not each.is_file():
            raise AccessError(
                f"{each} is missing: the pod has no service account token "
                "(automountServiceAccountToken: false?)"
            )
    server = f"https://{_bracketed(host)}:{port}"
    try:
        namespace = (files / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return ClusterAccess(
        server=checked_server(server, "KUBERNETES_SERVICE_HOST"),
        trust=Trust(authority=Pem(path=authority)),
        credentials=TokenFile(token),
        namespace=namespace or "default",
        proxy=proxy_for(server, env),
        name=IN_CLUSTER,
    )


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def checked_server(url: str, where: str) -> str:
    """The URL without a slash at its end. Raises AccessError when it is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise AccessError(f"{where}: {url!r}: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AccessError(f"{where}: {url!r} is no URL that begins with https:// or http://")
    if parts.username or parts.query or parts.fragment:
        raise AccessError(f"{where}: {url!r} may hold neither a user nor a query")
    return url.rstrip("/")


def checked_proxy(url: str, where: str) -> str:
    """A proxy that this client can use. Raises AccessError for others."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise AccessError(f"{where}: {url!r}: {exc}") from exc
    if parts.scheme not in ("http", "https"):
        raise AccessError(
            f"{where}: {url!r}: only http:// and https:// proxies can be used here, no SOCKS"
        )
    if not parts.hostname:
        raise AccessError(f"{where}: {url!r} names no host")
    return url


def proxy_for(server: str, env: Mapping[str, str]) -> str | None:
    """The proxy that the environment asks for, by the rules of Go, as kubectl has them."""
    parts = urllib.parse.urlsplit(server)
    name = "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY"
    url = env.get(name) or env.get(name.lower()) or ""
    host = parts.hostname or ""
    if not url or _is_direct(host, env.get("NO_PROXY") or env.get("no_proxy") or ""):
        return None
    return checked_proxy(url if "://" in url else f"http://{url}", name)


def _is_direct(host: str, without: str) -> bool:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost":
            return True
    if address is not None and address.is_loopback:
        return True
    return any(_matches(host, address, each.strip().lower()) for each in without.split(","))


def _matches(
    host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, rule: str
) -> bool:
    if not rule:
        return False
    if rule == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    rule = rule.removeprefix("*").rpartition(":")[0] or rule.removeprefix("*")
    return host == rule.lstrip(".") or host.endswith("." + rule.lstrip("."))
