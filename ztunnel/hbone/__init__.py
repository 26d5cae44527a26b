"""HBONE without I/O: HTTP/2 for CONNECT tunnels, as a correct RFC 9113 endpoint.

Read `session` first, then `receive`, `core`, `header_frames` and `control_frames`.
"""

from ztunnel.compiled import prefer

prefer(__path__, "hbone")
