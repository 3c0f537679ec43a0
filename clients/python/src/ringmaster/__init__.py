"""Locks of a Ringmaster cluster: automatically renewed leases with fencing tokens.

A lease without fencing is only advice: pass ``lock.token`` to the protected resource, and let the
resource reject every token lower than the highest one it has seen.
"""

from ._async import AsyncClient
from ._errors import LockHeld, LockLost, Problem, RingmasterError, Unreachable
from ._lock import AsyncLock
from ._sync import Client, Lock

__all__ = [
    "AsyncClient",
    "AsyncLock",
    "Client",
    "Lock",
    "LockHeld",
    "LockLost",
    "Problem",
    "RingmasterError",
    "Unreachable",
]
