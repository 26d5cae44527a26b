"""An enroller's facts on a registry in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.enrol.book import Book
from agent.enrol.facts import Facts
from agent.registry import Registration, Registry
from control.model.address import parse_address
from tests.support.clock import FakeClock

ADDRESS = parse_address("10.0.0.1")
# Its namespace does not exist: whoever opens it finds that it is gone.
POD = Registration("uid", "shop", "web", "/run/netns/tulle-absent", 7, 8, "default", (ADDRESS,))


@pytest.fixture
def known(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "state")
    made.load()
    return made


@pytest.fixture
def facts(known: Registry) -> Facts:
    return Facts(FakeClock(), Book(2.0, linger_s=30.0), known)
