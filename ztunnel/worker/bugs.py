"""The bugs that the reactor's boundary caught: counted, and logged with their traceback."""

from __future__ import annotations

import logging

from ztunnel.loop.served import Served

log = logging.getLogger("ztunnel.worker")


class Bugs:
    def __init__(self) -> None:
        self.count = 0

    def report(self, item: Served) -> None:
        """Called while the exception is being handled."""
        self.count += 1
        log.exception("connection.bug", extra={"fields": {"kind": type(item).__name__}})
