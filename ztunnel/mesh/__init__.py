"""What this node knows of the mesh, and what follows from it; pure.

Read `state` first; then `route` (where does a connection go) and `authorize` (may it come in).
"""

from ztunnel.compiled import prefer

prefer(__path__, "mesh")
