"""The roles that an endpoint plays in one connection, as types: one does not pass for another.

They are checked, not run: a compiled module has no trace of them.
"""

from __future__ import annotations

from typing import NewType

from control.model.address import Endpoint

# The destination that an app dialled: a service's address and port, or a pod's.
Asked = NewType("Asked", Endpoint)
# The destination after translation: the app that the connection is for, or what is asked of a
# waypoint, or a host outside the mesh.
Target = NewType("Target", Endpoint)
# The other end of a tunnel: the HBONE port of a pod or of a gateway.
NextHop = NewType("NextHop", Endpoint)
# The pod's own address and port at which a connection arrived.
Accepted = NewType("Accepted", Endpoint)
