"""HBONE without I/O: HTTP/2 for CONNECT tunnels, as a correct RFC 9113 endpoint.

Read `session` first, then `states`, `receive`, `core`, `data_frames`, `header_frames` and
`control_frames`.
"""

from ztunnel.compiled import prefer

prefer(__path__, "hbone")
