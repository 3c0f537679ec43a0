"""Requests: one address after the other, under one key.

A client knows several addresses of one cluster and asks them in turn: any node can answer, so the
first that does is asked first the next time. A change carries one idempotency key through all its
attempts, so that it takes effect once, however often it is sent.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from ._errors import Problem, RingmasterError, Unreachable

if TYPE_CHECKING:
    from ._lock import AsyncLock, OnLost

CONNECT_WITHIN = 1.0
"""How long a node may take to accept a connection."""
ANSWER_WITHIN = 5.0
"""How long a node may take to answer; one that runs says after three seconds that it could not do it."""
RETRY_PAUSE = 0.25
"""How long to wait before all nodes are asked again."""
RETRY_FOR = 5.0
"""For how long a request is sent again because there is no leader."""
PROBE_EVERY = 2.0
"""How often a node that takes its time, as it may, is asked whether it lives."""
PROBE_WITHIN = 1.0
"""How long it may take to say so, before the request is taken to the next one."""
MAX_ADDRESSES = 16
"""How many addresses of the cluster are remembered."""
MAX_IDLE_CONNECTIONS = 20
"""How many connections are kept open while nothing is asked."""


@dataclass(frozen=True)
class Request:
    """A request, and how long a node may take for it."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    key: str | None = field(default_factory=lambda: str(uuid.uuid4()))
    within: float = ANSWER_WITHIN


class AsyncClient:
    """A client of one cluster, for asyncio. Closing it gives back the locks that it holds."""

    def __init__(self, urls: str | Iterable[str]) -> None:
        given = [urls] if isinstance(urls, str) else list(urls)
        if not given:
            raise ValueError("a client needs the URL of one node at least")
        for url in given:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"the URL of a node begins with http://, as in http://127.0.0.1:7701, unlike {url!r}")
        self._urls = [url.rstrip("/") for url in given][:MAX_ADDRESSES]
        self._discovered = False
        self._held: set[AsyncLock] = set()
        # Nodes are reached directly: a proxy of the environment is for the internet.
        self._http = httpx.AsyncClient(
            trust_env=False,
            headers={"ringmaster-client": "python", "accept": "application/json"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for lock in list(self._held):
            await lock._give_back()
        await self._http.aclose()

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
    ) -> AsyncLock:
        """A lock to acquire, by ``async with`` or by ``acquire`` and ``release``. Times are seconds."""
        from ._lock import AsyncLock

        return AsyncLock(
            self, name, ttl=ttl, wait=wait, owner=owner, shared=shared, limit=limit, meta=meta, on_lost=on_lost
        )

    async def get(self, path: str) -> Any:
        """Asks the API, for example for ``/v1/cluster``."""
        request = Request("GET", path, key=None)
        return await self._insist(time.monotonic() + RETRY_FOR, lambda: request)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Changes something by the API."""
        request = Request("POST", path, body)
        return await self._insist(time.monotonic() + RETRY_FOR, lambda: request)

    async def discover(self) -> None:
        """Asks a node for the addresses of the others, unless one was asked before."""
        if self._discovered:
            return
        # Whoever names nobody who is there wants to know at once.
        cluster = await self._ask_in_turn(Request("GET", "/v1/cluster", key=None))
        members = [str(node["public_url"]).rstrip("/") for node in cluster["nodes"]]
        known = self._urls + [url for url in members if url not in self._urls]
        self._urls = known[:MAX_ADDRESSES]
        self._discovered = True

    async def _insist(self, until: float, request: Callable[[], Request]) -> Any:
        """Sends a request to one node after the other until one has a final answer, or ``until`` has come.

        ``request`` makes it anew for each attempt; all of them carry the same key.
        """
        while True:
            try:
                return await self._ask_in_turn(request, until)
            except Problem as error:
                if not error.may_pass() or time.monotonic() + RETRY_PAUSE >= until:
                    raise
            except Unreachable:
                if time.monotonic() + RETRY_PAUSE >= until:
                    raise
            await asyncio.sleep(RETRY_PAUSE)

    async def _ask_in_turn(
        self, request: Request | Callable[[], Request], until: float | None = None
    ) -> Any:
        """Asks each node once, until one has a final answer."""
        attempts: list[tuple[str, str]] = []
        passing: Problem | None = None
        for url in list(self._urls):
            try:
                answer = await self._send(url, request if isinstance(request, Request) else request())
            except Problem as error:
                if not error.may_pass():
                    self._prefer(url)
                    raise
                passing = error
                self._put_off(url)
            except (httpx.HTTPError, TimeoutError, ConnectionError) as error:
                attempts.append((url, str(error) or "no answer in time"))
                self._put_off(url)
            else:
                self._prefer(url)
                return answer
            if until is not None and time.monotonic() >= until:
                break
        raise passing or Unreachable(attempts)

    async def _send(self, url: str, request: Request) -> Any:
        """The answer of one node."""
        headers = {} if request.key is None else {"idempotency-key": request.key}
        sending = asyncio.ensure_future(
            self._http.request(
                request.method,
                url + request.path,
                json=request.body,
                headers=headers,
                timeout=httpx.Timeout(request.within, connect=CONNECT_WITHIN),
            )
        )
        tasks: set[asyncio.Future[Any]] = {sending}
        if request.within > ANSWER_WITHIN:
            tasks.add(asyncio.ensure_future(self._silence(url)))
        try:
            await asyncio.wait(tasks, timeout=request.within, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise TimeoutError("it fell silent" if request.within > ANSWER_WITHIN else "no answer in time")
            return _read(url, sending.result())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _silence(self, url: str) -> None:
        """Ends once the node does not answer: a connection to one that is paused or cut off stays open."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            try:
                async with asyncio.timeout(PROBE_WITHIN):
                    await self._http.get(f"{url}/livez")
            except (httpx.HTTPError, TimeoutError):
                return

    def _prefer(self, url: str) -> None:
        self._urls = [url] + [known for known in self._urls if known != url]

    def _put_off(self, url: str) -> None:
        self._urls = [known for known in self._urls if known != url] + [url]


def _read(url: str, response: httpx.Response) -> Any:
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and body is not None:
        return body
    if isinstance(body, dict) and "code" in body:
        raise Problem.of(body)
    raise RingmasterError(f"{url} does not answer as a Ringmaster node would: it says {response.status_code}")
