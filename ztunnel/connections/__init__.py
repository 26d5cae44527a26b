"""The life of a connection, from accept to its last line.

Read `listeners` first; then `outbound` and `pool` for the way out, `inbound_tunnel` for the way in.
"""

from ztunnel.compiled import prefer

prefer(__path__, "connections")
