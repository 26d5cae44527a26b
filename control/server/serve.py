"""`tulle-control serve`: flags and environment in, exit codes out."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click

from control.kit import log as kit_log
from control.kit.command import PlainCommand
from control.kit.errors import ConfigError, os_error_text
from control.kit.flags import ListenAddress
from control.kit.log import event
from control.kube.access import IN_CLUSTER, ClusterAccess
from control.kube.kubeconfig import find_access
from control.server import plane
from control.server.assembly import PlaneConfig
from control.server.callers.tokens import AUDIENCE
from control.server.cluster import ClusterConfig
from control.server.compile.settings import Settings
from control.server.flags import DRY_RUN, DURATION, FOLDER, ROOT_NAMESPACE, STATE, option
from control.server.sources.lasting import GONE_SHARE

log = logging.getLogger("control")

INSTALL_NAMESPACE = "tulle-system"
NODE_ACCOUNTS = ("tulle-ztunnel", "tulle-agent")
DEFAULT_NAMES = ("istiod.istio-system.svc", "tulle-control", "localhost")
# A thread that reads files hands the interpreter over so soon: to answer a probe the loop has to
# get it back some ten times. A millisecond made each of them twice as long, and cost as much.
SWITCH_S = 0.0003

_manifests = option("--manifests", **FOLDER)
_kubernetes = option(
    "--kubernetes",
    is_flag=True,
    help="Read objects from a Kubernetes API server: a pod's own, or that of a kubeconfig.",
)
_kubeconfig = option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Kubeconfig for --kubernetes. Without it KUBECONFIG, a pod's own access, ~/.kube/config.",
)
_context = option("--context", default="", help="Context of the kubeconfig, if not its current.")
_namespace = option(
    "--namespace",
    default="",
    help="Namespace of the install: POD_NAMESPACE, that of a pod's own access, or tulle-system.",
    show_default=False,
)
_account = option(
    "--node-account",
    multiple=True,
    default=NODE_ACCOUNTS,
    metavar="[NAMESPACE/]NAME",
    help="Service account of agents or ztunnels: its pods speak for their node. Repeatable.",
)
_audience = option("--audience", default=AUDIENCE, help="Audience of the tokens of such pods.")
_ca_secret = option(
    "--ca-secret",
    default="",
    metavar="NAME",
    show_default=False,
    help="Secret with your own CA (tls.crt, tls.key, ca.crt). Without it `cacerts` if it is there, "
    "else tulle-ca, which is made.",
)
_ca_in_state = option(
    "--ca-in-state", is_flag=True, help="Keep the CA in --state, though there is an API server."
)
_gone_share = option(
    "--gone-share",
    type=click.FloatRange(0, 1),
    default=GONE_SHARE,
    help="Share of all objects that may vanish at once; more stays in force. 1: any may go.",
)
_ALWAYS = "Keep connections inside a node in the ztunnel too (per namespace: tulle.io/path=tunnel)."
_always_tunnel = option("--always-tunnel", is_flag=True, help=_ALWAYS)
_LEAVING = "Let every pod go, whatever its labels, and lift all policies: before uninstalling."
_release_all = option("--release-all", is_flag=True, help=_LEAVING)


@click.command(cls=PlainCommand)
@_manifests
@_kubernetes
@_kubeconfig
@_context
@_namespace
@_account
@_audience
@_ca_secret
@_ca_in_state
@STATE
@_gone_share
@option(
    "--listen",
    multiple=True,
    type=ListenAddress(),
    default=("[::]:15012",),
    help="TLS port for xDS, certificates and enrolment. Repeatable.",
)
@option(
    "--dns-name",
    multiple=True,
    default=DEFAULT_NAMES,
    metavar="NAME",
    help="Name in the port's certificate. Repeatable; addresses of --listen are added.",
)
@option("--trust-domain", default="cluster.local", help="Trust domain of every identity.")
@option("--cluster-id", default="Kubernetes", help="First part of every workload's uid.")
@option("--network", default="", help="Network of every workload.")
@ROOT_NAMESPACE
@option("--domain-suffix", default="cluster.local", help="End of every service's host name.")
@option(
    "--admin",
    default="/run/tulle/control/admin.sock",
    metavar="PATH|ADDR:PORT",
    help="Admin pages: a unix socket (0600), or an address (answers to localhost only).",
)
@option(
    "--metrics",
    type=ListenAddress(),
    default="127.0.0.1:15014",
    help="/metrics and /healthz/ready.",
)
@option("--cert-ttl-max", type=DURATION, default="24h", help="Longest life of a certificate.")
@option("--log-level", default="info", help="A level, or levels: info,xds:debug.")
@option("--log-format", type=click.Choice(["text", "json"]), default="text")
@DRY_RUN
@_always_tunnel
@_release_all
def serve(
    *,
    manifests: Path | None,
    kubernetes: bool,
    kubeconfig: Path | None,
    context: str,
    namespace: str,
    node_account: Sequence[str],
    audience: str,
    ca_secret: str,
    ca_in_state: bool,
    state: Path,
    gone_share: float,
    listen: Sequence[str],
    dns_name: Sequence[str],
    trust_domain: str,
    cluster_id: str,
    network: str,
    root_namespace: str,
    domain_suffix: str,
    admin: str,
    metrics: str,
    cert_ttl_max: float,
    log_level: str,
    log_format: str,
    dry_run_policies: bool,
    always_tunnel: bool,
    release_all: bool,
) -> None:
    """Run the control plane (the default command)."""
    if (manifests is None) != kubernetes:
        raise click.UsageError("exactly one of --manifests DIR and --kubernetes is needed")
    if not kubernetes and (kubeconfig is not None or context or ca_secret or ca_in_state):
        said = "--kubeconfig, --context, --ca-secret and --ca-in-state are for --kubernetes"
        raise click.UsageError(said)
    if ca_secret and ca_in_state:
        raise click.UsageError("--ca-secret NAME or --ca-in-state: one of them")
    try:
        kit_log.setup(log_level, log_format, is_strict=True)
        for noisy in ("grpc", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.INFO)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--log-level") from exc
    settings = Settings(
        trust_domain=trust_domain,
        cluster_id=cluster_id,
        network=network,
        root_namespace=root_namespace,
        domain_suffix=domain_suffix,
        dry_run_policies=dry_run_policies,
        always_tunnel=always_tunnel,
        release_all=release_all,
        keeps_pods=release_all and kubernetes,
    )
    config = PlaneConfig(
        manifests=manifests,
        state=state,
        listen=tuple(listen),
        dns_names=tuple(dns_name),
        admin=admin,
        metrics=metrics,
        cert_ttl_max=timedelta(seconds=cert_ttl_max),
        settings=settings,
        gone_share=gone_share,
    )
    try:
        if kubernetes:
            access = find_access(dict(os.environ), kubeconfig, context)
            cluster = ClusterConfig(
                access=access,
                namespace=_install_namespace(namespace, access),
                identity=_identity(),
                accounts=tuple(node_account),
                audience=audience,
                ca_secret=ca_secret,
                ca_in_state=ca_in_state,
            )
            config = replace(config, cluster=cluster)
        sys.setswitchinterval(SWITCH_S)
        asyncio.run(plane.serve(config))
    except (ConfigError, OSError) as exc:
        why = os_error_text(exc) if isinstance(exc, OSError) else str(exc)
        event(log, logging.ERROR, "control.failed", error=why)
        sys.exit(2)


def _install_namespace(said: str, access: ClusterAccess) -> str:
    own = access.namespace if access.name == IN_CLUSTER else ""
    return said or os.environ.get("POD_NAMESPACE", "") or own or INSTALL_NAMESPACE


def _identity() -> str:
    """Name of this replica and no other, not even of the one before it in the same pod."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}"
