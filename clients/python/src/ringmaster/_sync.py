"""The client without asyncio: a background thread runs the requests and the renewals.

A thread does not survive ``fork``, so a client is of no use in a child of the process that made it, and says so.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self, TypeVar

from ._async import AsyncClient
from ._lock import AsyncLock, OnLost

T = TypeVar("T")


class Client:
    """A client of one cluster. Closing it releases its locks."""

    def __init__(self, urls: str | Iterable[str]) -> None:
        self._client = AsyncClient(urls)
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ringmaster", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._loop.is_closed() or self._process != os.getpid():
            return
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lock(
        self,
        name: str,
        *,
        ttl: float = 10.0,
        wait: float = 0.0,
        owner: str | None = None,
        shared: bool = False,
        limit: int | None = None,
        meta: Mapping[str, str] | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """A lock, to use with ``with`` or with ``acquire`` and ``release``. Times are in seconds."""
        lock = self._client.lock(
            name, ttl=ttl, wait=wait, owner=owner, shared=shared, limit=limit, meta=meta, on_lost=on_lost
        )
        return Lock(self, lock)

    def get(self, path: str) -> Any:
        """Sends a GET to the API, for example to ``/v1/cluster``."""
        return self._run(self._client.get(path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Sends a POST to the API."""
        return self._run(self._client.post(path, body))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        why = None
        if self._process != os.getpid():
            why = f"this client was made in process {self._process}, before a fork; make one in each process"
        elif self._loop.is_closed():
            why = "this client is closed"
        if why is not None:
            work.close()
            raise RuntimeError(why)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # For example after Ctrl-C: a cancelled acquire leaves the queue.
            future.cancel()
            raise


class Lock:
    """A lock, from :meth:`Client.lock`. It can be held once at a time."""

    def __init__(self, client: Client, lock: AsyncLock) -> None:
        self._client = client
        self._lock = lock

    def __repr__(self) -> str:
        return repr(self._lock)

    @property
    def name(self) -> str:
        return self._lock.name

    @property
    def owner(self) -> str:
        return self._lock.owner

    @property
    def token(self) -> int:
        """The fencing token. Pass it to the resource that the lock protects."""
        return self._lock.token

    def valid_for(self) -> float:
        """How many seconds the lock stays held if no further renewal succeeds; 0 after a loss."""
        return self._lock.valid_for()

    def raise_if_lost(self) -> None:
        """Raises :class:`LockLost` if the lock is no longer held."""
        self._lock.raise_if_lost()

    def acquire(self) -> Self:
        """Acquires the lock and starts to renew it. Raises :class:`LockHeld` when the wait ends."""
        self._client._run(self._lock.acquire())
        return self

    def release(self) -> None:
        """Releases the lock; a repeat does nothing. Raises :class:`LockLost` if the lock was lost earlier."""
        self._client._run(self._lock.release())

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._client._run(self._lock.__aexit__(kind, *rest))
