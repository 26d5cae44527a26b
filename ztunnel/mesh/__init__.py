"""The mesh as this node knows it, and the decisions made from it; pure. Read `state` first; then
`route` (destination of a connection) and `authorize` (admission).
"""

from ztunnel.compiled import prefer

prefer(__path__, "mesh")
