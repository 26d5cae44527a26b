"""Outcome of each connection: its counters and its access-log line. Read `outcome` first, then
`parties`.
"""

from ztunnel.compiled import prefer

prefer(__path__, "telemetry")
