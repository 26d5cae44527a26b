"""Shared parts of the tests of session and session_limits."""

from ztunnel.hbone.settings import SessionSettings

SMALL = SessionSettings(initial_window_bytes=1_000, connection_window_bytes=100_000)
