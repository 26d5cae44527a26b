"""Names of the loggers that take a level of their own, over all processes.

One table for all: `tulle log level - xds:debug` goes to every process, and the ztunnel's supervisor
passes on levels of loggers that only its workers have.
"""

from __future__ import annotations

import logging
from typing import Final

from control.kit.choices import absent

SCOPES: Final = (
    "access",
    "admin",
    "agent",
    "asyncio",
    "ca",
    "certificates",
    "cgroup",
    "cni",
    "control",
    "cri",
    "direct",
    "enrol",
    "enrolment",
    "envoy",
    "grpc",
    "http",
    "intents",
    "kube",
    "kubelet",
    "leader",
    "memory",
    "metrics",
    "pods",
    "policy",
    "registry",
    "sds",
    "server",
    "source",
    "supervisor",
    "waypoint",
    "workers",
    "xds",
    "zds",
    "ztunnel",
    "ztunnel.dial",
    "ztunnel.direct",
    "ztunnel.engine",
    "ztunnel.inbound",
    "ztunnel.listeners",
    "ztunnel.outbound",
    "ztunnel.redirected",
    "ztunnel.worker",
)


def is_known(scope: str) -> bool:
    """True for a scope of the table, and for a library's logger that this process has."""
    return scope in SCOPES or scope in logging.root.manager.loggerDict


def complaint(unknown: str) -> str:
    """Words for a scope that is not there: the one that was probably meant, and all."""
    return absent("log scope", unknown, SCOPES, shown_max=len(SCOPES))
