"""Bytes between sockets, TLS and HTTP/2 streams.

Read `ends` first, then `tunnel` and `relay`; `passthrough` is the way without a tunnel.
"""

from ztunnel.compiled import prefer

prefer(__path__, "transport")
