"""Shared parts of the tests of hostile and hostile_control."""

from __future__ import annotations

ID = "spiffe://cluster.local/ns/mesh/sa/client"
