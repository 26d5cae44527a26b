"""`tulle-ztunnel`: reads flags and environment, sets up the process, runs the supervisor."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from control.kit.command import PlainCommand
from control.kit.door import is_loopback_port
from control.kit.errors import ConfigError
from control.kit.flags import Duration, ListenAddress, Parsed, option
from control.kit.log import event, setup, unknown_scopes
from control.kit.scopes import SCOPES
from control.kit.version import version
from ztunnel.config import (
    OFF,
    SYSTEM_ROOTS,
    ZDS_NAME,
    Addresses,
    ZtunnelConfig,
    direct_socket,
    host_port,
    token_source,
    workers_of,
)
from ztunnel.start import run

log = logging.getLogger("ztunnel")

# Istio's ztunnel finds its files here without a flag: its manifests mount them so.
ROOT_MOUNTED = "./var/run/secrets/istio/root-cert.pem"
TOKEN_MOUNTED = "./var/run/secrets/tokens/istio-token"
ZDS_MOUNTED = "/var/run/ztunnel/ztunnel.sock"
# Arguments that Istio's DaemonSet gives to its container; none of them says anything.
ISTIO_WORDS = (), ("proxy",), ("proxy", "ztunnel")
DRAIN_S = 300.0
DRAIN_ALONE_S = 5.0

EPILOG = """\b
With Tulle's own control plane and agent:
  tulle-ztunnel --control control.example:15012 --control-root root.pem \\
      --token /run/tulle/token --node node-1 --zds /run/tulle/node-1/zds.sock

\b
With Istio's (its node agent needs --fixed-ports; switch its DNS capture off,
there is no proxy for it here):
  tulle-ztunnel --control istiod.istio-system.svc:15012 --fixed-ports \\
      --control-root /var/run/secrets/istio/root-cert.pem \\
      --token /var/run/secrets/tokens/istio-token --node "$NODE_NAME" \\
      --zds /var/run/ztunnel/ztunnel.sock

In the container of Istio's own DaemonSet it needs no flag: its variables, mounts and arguments
(proxy ztunnel) mean the same.

Every flag is an environment variable too: TULLE_ and its name, or the name that Istio's ztunnel
has for it (shown beside the flag). SIGTERM drains; SIGINT too, and ends a drain.
"""


ADDRESS = Parsed("HOST:PORT", host_port)
DURATION = Duration()
WORKERS = Parsed("N|N%", lambda text: workers_of(text, os.cpu_count() or 1))
TOKEN = Parsed("FILE|JWT", token_source)
FILE = click.Path(path_type=Path)
PAGE = ListenAddress(*sorted(OFF))


def drain_s(told_s: float | None, grace_s: float | None, default_s: float) -> float:
    """Time for open connections. Without a word, what a pod's grace period leaves, as in Istio."""
    if told_s is not None:
        return told_s
    if grace_s is None:
        return default_s
    return grace_s - 5.0 if grace_s > 10.0 else max(1.0, grace_s - 1.0)


@click.command(
    cls=PlainCommand,
    epilog=EPILOG,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@option("--control", "XDS_ADDRESS", type=ADDRESS, required=True, help="Control plane (delta xDS).")
@option(
    "--control-root",
    "XDS_ROOT_CA",
    show_default="Istio's mount if there, else SYSTEM",
    help="Its root: file, PEM or SYSTEM.",
)
@option("--control-name", "ALT_XDS_HOSTNAME", default="", help="Verify this name instead.")
@option("--ca", "CA_ADDRESS", type=ADDRESS, help="Certificate service; default: --control.")
@option("--ca-root", "CA_ROOT_CA", help="Its root; default: --control-root.")
@option("--ca-name", "ALT_CA_HOSTNAME", help="Its name; default: --control-name.")
@option(
    "--token",
    "AUTH_TOKEN",
    type=TOKEN,
    show_default="Istio's mount if there",
    help="Bearer token file, read again at each use.",
)
@option(
    "--node",
    "NODE_NAME",
    default=socket.gethostname,
    show_default="host name",
    help="This node's name.",
)
@option(
    "--zds",
    "INPOD_UDS",
    type=FILE,
    show_default="Istio's mount if there, else in the run folder",
    help="The agent's socket.",
)
@option(
    "--direct",
    type=str,
    show_default="direct.sock beside our own agent's --zds",
    help="The agent's socket for the direct path, or off.",
)
@option("--run-dir", type=FILE, default="/run/tulle", help="Sockets live in <run-dir>/<node>/.")
@option("--workers", "ZTUNNEL_WORKER_THREADS", type=WORKERS, default="1", help="0: one per CPU.")
@option(
    "--drain",
    type=DURATION,
    show_default="5m, or 5s less than --grace",
    help="Time for open connections to end after SIGTERM, beside a newer ztunnel of this node.",
)
@option(
    "--drain-alone",
    "CONNECTION_TERMINATION_DEADLINE",
    type=DURATION,
    show_default="5s, or 5s less than --grace",
    help="The same, where no newer ztunnel has come.",
)
@option(
    "--grace",
    "TERMINATION_GRACE_PERIOD_SECONDS",
    type=DURATION,
    help="Time from SIGTERM to SIGKILL, as our starter has it.",
)
@option("--spin", type=DURATION, default="50us", help="Poll this long before sleeping; 0: never.")
@option(
    "--secret-ttl",
    "SECRET_TTL",
    type=DURATION,
    default="24h",
    help="Requested life of certificates.",
)
@option("--trust-domain", "TRUST_DOMAIN", default="cluster.local")
@option("--cluster-id", "ISTIO_META_CLUSTER_ID", "CLUSTER_ID", default="Kubernetes")
@option("--network", "NETWORK", default="")
@option("--pod-name", "POD_NAME", default="", help="Our own pod; default: ztunnel-<node>.")
@option("--pod-namespace", "POD_NAMESPACE", default="istio-system")
@option("--service-account", "SERVICE_ACCOUNT", default="ztunnel")
@option("--instance-ip", "INSTANCE_IP", default="127.0.0.1")
@option(
    "--fixed-ports/--no-fixed-ports",
    default=None,
    show_default="yes where --zds is Istio's ztunnel.sock",
    help="Listen on 15001, 15006, 15008 in every pod, as foreign agents expect.",
)
@option(
    "--addresses",
    type=click.Choice([each.value for each in Addresses]),
    default=Addresses.ALL.value,
    help="Be told of every address of the mesh, or of those that this node's pods dial; auto: by "
    "its size, with our own control plane.",
)
@option(
    "--mode",
    "PROXY_MODE",
    type=click.Choice(["shared"]),
    default="shared",
    help="One ztunnel for all pods of the node; there is no other mode.",
)
@option(
    "--dns-capture/--no-dns-capture",
    "ISTIO_META_DNS_CAPTURE",
    default=None,
    show_default="yes where --zds is Istio's ztunnel.sock",
    help="The agent sends pods' DNS to port 15053, where nobody answers here: warn of it.",
)
@option(
    "--admin", type=PAGE, default="127.0.0.1:15000", help="Metrics and readiness again, or off."
)
@option(
    "--admin-on-tcp/--no-admin-on-tcp",
    default=False,
    help="Serve every admin page on --admin too, to any process of this host, as Istio's does.",
)
@option("--metrics", type=PAGE, default="0.0.0.0:15020", help="Metrics page, or off.")
@option("--readiness", type=PAGE, default="0.0.0.0:15021", help="Readiness page, or off.")
@option("--log-level", "RUST_LOG", default="info", help="info, or info,access:debug.")
@option("--log-format", "LOG_FORMAT", type=click.Choice(["text", "json", "plain"]), default="text")
@option("--access-log/--no-access-log", default=True, help="One line per connection and side.")
@option("--cgroup", type=FILE, help="Join this cgroup2 folder first, making it if need be.")
@click.argument("words", nargs=-1, metavar="[proxy [ztunnel]]")
@click.version_option(version(), prog_name="tulle-ztunnel", message="%(prog)s %(version)s")
def main(**flags: Any) -> None:
    """The mesh's proxy on one node: mTLS for every enrolled pod, with its identity and policy."""
    try:
        config = make_config(flags)
        source = click.get_current_context().get_parameter_source("log_level")
        unknown = unknown_scopes(config.log_level)
        is_strict = source is ParameterSource.COMMANDLINE
        setup(config.log_level, config.log_format, is_strict=is_strict)
        for scope in unknown:  # RUST_LOG may name modules of Istio's
            event(log, logging.WARNING, "log.scope_unknown", scope=scope, known=",".join(SCOPES))
        run(config)
        sys.exit(0)
    except (ConfigError, ValueError) as exc:
        raise click.UsageError(str(exc)) from exc


def make_config(flags: dict[str, Any]) -> ZtunnelConfig:
    """Settings from the flags; fills in those that depend on others."""
    values = dict(flags)
    values.pop("mode")
    words = values.pop("words")
    if words not in ISTIO_WORDS:
        raise ConfigError(f"unexpected arguments: {' '.join(words)}")
    node = values["node"]
    values["control_root"] = values["control_root"] or _mounted(ROOT_MOUNTED) or SYSTEM_ROOTS
    if values["token"] is None and _mounted(TOKEN_MOUNTED):
        values["token"] = Path(TOKEN_MOUNTED)
    values["ca"] = values["ca"] or values["control"]
    values["ca_root"] = values["ca_root"] or values["control_root"]
    values["ca_name"] = values["control_name"] if values["ca_name"] is None else values["ca_name"]
    is_istios = Path(ZDS_MOUNTED).parent.is_dir() and bool(_mounted(TOKEN_MOUNTED))
    values["zds"] = values["zds"] or (
        Path(ZDS_MOUNTED) if is_istios else values["run_dir"] / node / ZDS_NAME
    )
    if values["fixed_ports"] is None:
        values["fixed_ports"] = values["zds"].name == Path(ZDS_MOUNTED).name
    if values["dns_capture"] is None:  # Istio's agent does, unless it is told not to
        values["dns_capture"] = values["zds"].name == Path(ZDS_MOUNTED).name
    direct = values["direct"]
    if direct is None:
        values["direct"] = direct_socket(values["zds"], fixed_ports=values["fixed_ports"])
    else:
        values["direct"] = None if direct in OFF else Path(direct)
    values["pod_name"] = values["pod_name"] or f"ztunnel-{node}"
    grace_s = values.pop("grace")
    values["drain_s"] = drain_s(values.pop("drain"), grace_s, DRAIN_S)
    values["drain_alone_s"] = drain_s(values.pop("drain_alone"), grace_s, DRAIN_ALONE_S)
    values["secret_ttl_s"] = values.pop("secret_ttl")
    values["spin_us"] = round(values.pop("spin") * 1_000_000)
    values["addresses"] = Addresses(values["addresses"])
    values["log_format"] = "json" if values["log_format"] == "json" else "text"
    if not node:
        raise ConfigError("--node is empty")
    if values["admin_on_tcp"] and not is_loopback_port(values["admin"]):
        raise ConfigError(f"--admin-on-tcp: {values['admin']} is no loopback address")
    return ZtunnelConfig(**values)


def _mounted(path: str) -> str:
    return path if Path(path).exists() else ""


if __name__ == "__main__":
    main()
