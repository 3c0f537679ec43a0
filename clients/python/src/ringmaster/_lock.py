"""A lock: acquired, kept, and given back.

What always holds:

- The lease is counted by this process's monotonic clock, from *before* the request that granted or
  renewed it was sent. So the holder takes the lock for lost before the cluster gives it to others, and
  what was taken for lost never becomes valid again.
- An acquire or a renewal is sent to one node after the other under one idempotency key.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self

from ._async import ANSWER_WITHIN, AsyncClient, Request
from ._errors import LockLost, Problem, RingmasterError

OnLost = Callable[[LockLost], None]

ACQUIRE_GRACE = 5.0
"""How much longer than the wait an acquire is tried where the cluster has no leader, or nodes die."""
RENEW_AT = 3
"""A lease is renewed when one part in so many of it is over."""
ATTEMPT_AT_MOST = 6
"""One part in so many of the lease is what one node may take for a renewal."""
SHORTEST_ATTEMPT = 0.1
"""The least time that a node is given to answer a renewal, however short the lease is."""
SHORTEST_TTL, LONGEST_TTL, LONGEST_WAIT = 0.1, 24 * 3600.0, 3600.0
"""What a cluster takes, in seconds."""
RENEW_PAUSE = 0.05
"""How long to wait before a renewal that failed is tried again."""

log = logging.getLogger("ringmaster")


def this_process() -> str:
    """What this process is called among the owners of locks: its host and its process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Lease:
    """For how long a lock is held, as its holder counts. Read by one thread, kept by another."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._until = 0.0
        self._loss: LockLost | None = None

    def grant(self, until: float) -> None:
        with self._mutex:
            self._until, self._loss = until, None

    def extend(self, until: float) -> bool:
        """False where it is over already: what was taken for lost never becomes valid again."""
        with self._mutex:
            in_time = self._loss is None and time.monotonic() < self._until
            if in_time:
                self._until = until
            return in_time

    def lose(self, loss: LockLost) -> None:
        with self._mutex:
            self._loss = loss

    def valid_for(self) -> float:
        with self._mutex:
            return 0.0 if self._loss else max(0.0, self._until - time.monotonic())

    def loss(self) -> LockLost | None:
        with self._mutex:
            if self._loss is None and time.monotonic() >= self._until:
                return LockLost("the lock is lost: its lease ran out before it was renewed")
            return self._loss


class AsyncLock:
    """A lock, from :meth:`AsyncClient.lock`. It is acquired once at a time."""

    def __init__(
        self,
        client: AsyncClient,
        name: str,
        *,
        ttl: float,
        wait: float,
        owner: str | None,
        shared: bool,
        limit: int | None,
        meta: Mapping[str, str] | None,
        on_lost: OnLost | None,
    ) -> None:
        if shared and limit is not None:
            raise ValueError("a limit says how many may share the lock; leave shared out")
        _check_seconds("ttl", ttl, SHORTEST_TTL, LONGEST_TTL)
        _check_seconds("wait", wait, 0, LONGEST_WAIT)
        self.name = name
        self.owner = owner or this_process()
        self._client = client
        self._ttl = ttl
        self._wait = wait
        self._body: dict[str, Any] = {"name": name, "owner": self.owner, "ttl_ms": _ms(ttl)}
        if shared:
            self._body["mode"] = "shared"
        if limit is not None:
            self._body["limit"] = limit
        if meta:
            self._body["meta"] = dict(meta)
        self._on_lost = on_lost
        self._token: int | None = None
        self._since = 0.0
        self._lease = Lease()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        held = f"token={self._token}" if self._keeper is not None else "not held"
        return f"<lock {self.name!r} of {self.owner}, {held}>"

    @property
    def token(self) -> int:
        """The fencing token. Pass it to whatever the lock protects."""
        if self._token is None:
            raise RuntimeError(f"the lock {self.name} was not acquired")
        return self._token

    def valid_for(self) -> float:
        """For how many seconds it is held from now on if no renewal succeeds; 0 once it is lost."""
        return self._lease.valid_for()

    def raise_if_lost(self) -> None:
        """Raises :class:`LockLost` once the lock is not held any more."""
        loss = self._lease.loss()
        if loss is not None:
            raise loss

    async def acquire(self) -> Self:
        """Acquires it, and starts to renew it. Raises :class:`LockHeld` once the wait has passed."""
        if self._keeper is not None:
            raise RuntimeError(f"the lock {self.name} was acquired already")
        await self._client.discover()
        asked, key = time.monotonic(), str(uuid.uuid4())
        waits_until = asked + self._wait

        def attempt() -> Request:
            left = max(0.0, waits_until - time.monotonic())
            body = {**self._body, "wait_ms": _ms(left)}
            return Request("POST", "/v1/locks/acquire", body, key, left + ANSWER_WITHIN)

        grant = await self._client._insist(waits_until + ACQUIRE_GRACE, attempt)
        granted = time.monotonic()
        self._token, self._since = int(grant["token"]), asked
        if granted >= self._renewal_is_due():
            # A good part of it is over, as far as can be told from here. Nobody has seen it yet.
            try:
                await self._renew(granted + self._ttl)
            except BaseException:
                await asyncio.shield(self._tell_release())
                raise
        self._lease.grant(self._since + self._ttl)
        self._client._held.add(self)
        self._keeper = asyncio.ensure_future(self._keep())
        return self

    async def release(self) -> None:
        """Gives it back; once more does nothing. Raises :class:`LockLost` where it was lost before."""
        if self._keeper is None and self._token is not None:
            return
        loss = self._lease.loss()
        error = await self._give_back()
        if loss is not None:
            raise loss
        if isinstance(error, Problem) and error.code == LockLost.code:
            raise LockLost(f"the lock is lost: {error}") from error
        if error is not None:
            raise error

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.release()
        except LockLost:
            # The exception that is on its way says more.
            if kind is None:
                raise
        except RingmasterError as error:
            log.warning("the lock %s is not released, and runs out by itself: %s", self.name, error)

    async def _give_back(self) -> RingmasterError | None:
        """Ends the renewals, and tells the cluster; says what came of that."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            raise RuntimeError(f"the lock {self.name} was not acquired")
        self._client._held.discard(self)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        return await self._tell_release()

    async def _tell_release(self) -> RingmasterError | None:
        body = {"name": self.name, "owner": self.owner, "token": self._token}
        try:
            await self._client.post("/v1/locks/release", body)
        except RingmasterError as error:
            return error
        finally:
            self._lease.lose(LockLost("the lock was released"))
        return None

    def _renewal_is_due(self) -> float:
        return self._since + self._ttl / RENEW_AT

    async def _keep(self) -> None:
        """Renews the lease time and again, until it is lost or this is cancelled."""
        try:
            while True:
                await asyncio.sleep(self._renewal_is_due() - time.monotonic())
                until = self._since + self._ttl
                if time.monotonic() >= until:
                    raise LockLost("the lock is lost: this process did not get to renewing it")
                await self._renew(until)
                if not self._lease.extend(self._since + self._ttl):
                    raise LockLost("the lock is lost: the answer to its renewal came too late")
        except LockLost as loss:
            self._lease.lose(loss)
            if self._on_lost is not None:
                self._on_lost(loss)

    async def _renew(self, until: float) -> None:
        """Renews it by one request after the other, until that is of no more use."""
        body = {"name": self.name, "owner": self.owner, "token": self._token, "ttl_ms": _ms(self._ttl)}
        patience = min(max(self._ttl / ATTEMPT_AT_MOST, SHORTEST_ATTEMPT), ANSWER_WITHIN)
        while True:
            sent, key = time.monotonic(), str(uuid.uuid4())

            def attempt(key: str = key) -> Request:
                left = max(0.0, until - time.monotonic())
                return Request("POST", "/v1/locks/renew", body, key, min(patience, left))

            try:
                await self._client._insist(until, attempt)
            except RingmasterError as error:
                if error.code == LockLost.code:
                    raise LockLost(f"the lock is lost: {error}") from error
                if time.monotonic() + RENEW_PAUSE >= until:
                    message = f"the lock is lost: its lease ran out before it was renewed: {error}"
                    raise LockLost(message) from error
                await asyncio.sleep(RENEW_PAUSE)
            else:
                self._since = sent
                return


def _check_seconds(what: str, value: float, least: float, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{what} is {least:g} to {most:g} seconds, not {value!r}")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
