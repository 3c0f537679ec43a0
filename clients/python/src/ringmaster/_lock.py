"""A lock: acquire, renew, release.

What always holds:

- The lease is counted with this process's monotonic clock, from *before* the request that granted or
  renewed it was sent. The holder therefore reports the lock as lost before the cluster grants it to
  another owner, and a lock reported as lost never becomes valid again.
- After a wait, the lease is renewed before ``acquire`` returns. So a client that is paused while it waits, or
  whose connection leads nowhere, holds up those behind it for seconds, not for its TTL.
- An acquire or a renewal is sent to one node after the other with one idempotency key.
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

from ._async import REQUEST_TIMEOUT, AsyncClient, Attempts, Request
from ._errors import LockLost, Problem, RingmasterError

OnLost = Callable[[LockLost], None]

ACQUIRE_GRACE = 5.0
"""How long an acquire is retried beyond its wait while the cluster has no leader or nodes die."""
CONFIRM_WITHIN = 5.0
"""After a wait, the grant is confirmed by a renewal within this time, or the next waiter is granted the lock."""
WITHDRAW_TIMEOUT = 2.0
"""How long a cancelled ``acquire`` tries to leave the queue before the cluster notices by itself."""
RENEW_AT = 3
"""A lease is renewed when this fraction of it has passed."""
MAX_ATTEMPT = 6
"""One renewal attempt at one node takes at most this fraction of the lease."""
MIN_ATTEMPT_TIMEOUT = 0.1
"""The shortest time-out of one renewal attempt, however short the lease is."""
MIN_TTL, MAX_TTL, MAX_WAIT = 0.1, 24 * 3600.0, 3600.0
"""The limits of the cluster, in seconds."""
RENEW_PAUSE = 0.05
"""The pause between a failed renewal and the next attempt."""

log = logging.getLogger("ringmaster")


def default_owner() -> str:
    """The default owner of locks: this process's host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class LeaseState:
    """How long the lock is held by the holder's count. One thread reads it, another one updates it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._until = 0.0
        self._loss: LockLost | None = None

    def grant(self, until: float) -> None:
        with self._mutex:
            self._until, self._loss = until, None

    def extend(self, until: float) -> bool:
        """Returns false if the lease has ended: a lost lock never becomes valid again."""
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
                return LockLost("the lock is lost: its lease expired before it was renewed")
            return self._loss


class AsyncLock:
    """A lock, from :meth:`AsyncClient.lock`. It can be held once at a time."""

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
            raise ValueError("limit makes the lock a semaphore; do not pass shared with it")
        _check_seconds("ttl", ttl, MIN_TTL, MAX_TTL)
        _check_seconds("wait", wait, 0, MAX_WAIT)
        self.name = name
        self.owner = owner or default_owner()
        self._client = client
        # Counted as it is sent, in whole milliseconds.
        self._ttl = _ms(ttl) / 1000
        self._wait = wait
        self._body: dict[str, Any] = {"name": name, "owner": self.owner, "ttl_ms": _ms(ttl)}
        if wait > 0:
            self._body["confirm_within_ms"] = _ms(CONFIRM_WITHIN)
        if shared:
            self._body["mode"] = "shared"
        if limit is not None:
            self._body["limit"] = limit
        if meta:
            self._body["meta"] = dict(meta)
        self._on_lost = on_lost
        self._token: int | None = None
        self._since = 0.0
        self._lease = LeaseState()
        self._renewals: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        held = f"token={self._token}" if self._renewals is not None else "not held"
        return f"<lock {self.name!r} of {self.owner}, {held}>"

    @property
    def token(self) -> int:
        """The fencing token. Pass it to the resource that the lock protects."""
        if self._token is None:
            raise RuntimeError(f"the lock {self.name} is not acquired")
        return self._token

    def valid_for(self) -> float:
        """How many seconds the lock stays held if no further renewal succeeds; 0 after a loss."""
        return self._lease.valid_for()

    def raise_if_lost(self) -> None:
        """Raises :class:`LockLost` if the lock is no longer held."""
        loss = self._lease.loss()
        if loss is not None:
            raise loss

    async def acquire(self) -> Self:
        """Acquires the lock and starts to renew it. Raises :class:`LockHeld` when the wait ends."""
        if self._renewals is not None:
            raise RuntimeError(f"the lock {self.name} is already acquired")
        await self._client.discover()
        sent, key = time.monotonic(), str(uuid.uuid4())
        waits_until = sent + self._wait

        def attempt() -> Request:
            left = max(0.0, waits_until - time.monotonic())
            body = {**self._body, "wait_ms": _ms(left)}
            return Request("POST", "/v1/locks/acquire", body, key, left + REQUEST_TIMEOUT)

        try:
            grant = await self._client._send_until(waits_until + ACQUIRE_GRACE, attempt)
        except asyncio.CancelledError:
            if self._wait > 0:
                await asyncio.shield(self._withdraw(key))
            raise
        granted = time.monotonic()
        self._token, self._since = int(grant["token"]), sent
        granted_until = granted + min(self._ttl, int(grant["expires_in_ms"]) / 1000)
        if granted >= self._renewal_is_due() or granted_until < self._since + self._ttl:
            # By this process's count, a third of the lease has passed, or the grant waits for its confirmation. The
            # caller has not seen the lock yet.
            try:
                await self._renew(granted_until)
            except BaseException:
                await asyncio.shield(self._send_release())
                raise
        self._lease.grant(self._since + self._ttl)
        self._client._held.add(self)
        self._renewals = asyncio.ensure_future(self._renew_while_held())
        return self

    async def _withdraw(self, key: str) -> None:
        """Gives up the place in the queue, so that the next waiter is not held up: the same request without a wait."""
        body = {**self._body, "wait_ms": 0}
        try:
            async with asyncio.timeout(WITHDRAW_TIMEOUT):
                request = Request("POST", "/v1/locks/acquire", body, key)
                grant = await self._client._send_to_any(request, Attempts(None))
                self._token = int(grant["token"])
                await self._send_release()
        except (RingmasterError, TimeoutError):
            # It was not granted; or no node answers, and the cluster notices that the client is gone.
            pass

    async def release(self) -> None:
        """Releases the lock; a repeat does nothing. Raises :class:`LockLost` if the lock was lost earlier."""
        if self._renewals is None and self._token is not None:
            return
        loss = self._lease.loss()
        error = await self._stop_and_release()
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
            # The exception that is being raised says more.
            if kind is None:
                raise
        except RingmasterError as error:
            log.warning("the lock %s is not released, and expires automatically: %s", self.name, error)

    async def _stop_and_release(self) -> RingmasterError | None:
        """Stops the renewals and releases the lock; returns the error, if there is one."""
        renewals, self._renewals = self._renewals, None
        if renewals is None:
            raise RuntimeError(f"the lock {self.name} is not acquired")
        self._client._held.discard(self)
        renewals.cancel()
        await asyncio.gather(renewals, return_exceptions=True)
        return await self._send_release()

    async def _send_release(self) -> RingmasterError | None:
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

    async def _renew_while_held(self) -> None:
        """Renews the lease again and again until it is lost or this task is cancelled."""
        try:
            while True:
                await asyncio.sleep(self._renewal_is_due() - time.monotonic())
                until = self._since + self._ttl
                if time.monotonic() >= until:
                    raise LockLost("the lock is lost: this process was not scheduled in time to renew it")
                await self._renew(until)
                if not self._lease.extend(self._since + self._ttl):
                    raise LockLost("the lock is lost: the answer to its renewal came too late")
        except LockLost as loss:
            self._lease.lose(loss)
            if self._on_lost is not None:
                try:
                    self._on_lost(loss)
                except Exception:
                    log.exception("on_lost of the lock %s failed", self.name)

    async def _renew(self, until: float) -> None:
        """Sends renewals until one succeeds or ``until`` has passed."""
        body = {"name": self.name, "owner": self.owner, "token": self._token, "ttl_ms": _ms(self._ttl)}
        attempt_timeout = min(max(self._ttl / MAX_ATTEMPT, MIN_ATTEMPT_TIMEOUT), REQUEST_TIMEOUT)
        while True:
            sent, key = time.monotonic(), str(uuid.uuid4())

            def attempt(key: str = key) -> Request:
                left = max(0.0, until - time.monotonic())
                return Request("POST", "/v1/locks/renew", body, key, min(attempt_timeout, left))

            try:
                await self._client._send_until(until, attempt)
            except RingmasterError as error:
                if error.code == LockLost.code:
                    raise LockLost(f"the lock is lost: {error}") from error
                if time.monotonic() + RENEW_PAUSE >= until:
                    message = f"the lock is lost: its lease expired before it was renewed: {error}"
                    raise LockLost(message) from error
                await asyncio.sleep(RENEW_PAUSE)
            else:
                self._since = sent
                return


def _check_seconds(name: str, value: float, minimum: float, maximum: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} is {minimum:g} to {maximum:g} seconds, not {value!r}")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
