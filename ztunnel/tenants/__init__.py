"""Budgets of everything that tenants of a worker use up, without I/O: no tenant can stop another.

Read `tenancy` first, then `portions`, `seats`, `work` and `bounds`; `book` has them all.
"""

from ztunnel.compiled import prefer

prefer(__path__, "tenants")
