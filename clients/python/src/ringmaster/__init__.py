"""Locks of a Ringmaster cluster: leases that renew themselves, with fencing tokens.

A lease without fencing is advice: pass ``lock.token`` to whatever the lock protects, and have that
refuse every token lower than the highest one it has seen.
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
