"""Requests: sent to one address after the other, with one idempotency key.

A client knows several addresses of one cluster and tries them in turn: any node can answer, and the
node that answered is tried first the next time. All attempts of a change carry one idempotency key,
so that the change takes effect once however often it is sent.

A URL may be that of a proxy or a load balancer. What such a one answers when it has no node (502, 503, 504)
is no answer of a node: the request is sent to the next address, under the same key.
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

CONNECT_TIMEOUT = 1.0
"""How long a node may take to accept a connection."""
REQUEST_TIMEOUT = 5.0
"""How long a node may take to answer; a running node answers with an error after three seconds."""
RETRY_PAUSE = 0.25
"""The pause before all nodes are tried again."""
RETRY_FOR = 5.0
"""How long a request is repeated while there is no leader."""
PROBE_INTERVAL = 2.0
"""The interval of liveness probes during a request that may take longer than ``REQUEST_TIMEOUT``."""
PROBE_TIMEOUT = 1.0
"""How long a node may take to answer a probe before the request moves to the next node."""
MAX_SEEN_AGE = 10.0
"""How old the latest revision that a client has seen may be when it sends a change. It is read again before: the cluster
refuses a later attempt where it has forgotten answers since that revision, and an idle client's lies far behind."""
SEEN_NODE_TIMEOUT = 1.0
"""How long one node may take to answer that read."""
SEEN_TIMEOUT = 2.0
"""How long it may take in all. Without it, the change is sent all the same."""
MAX_ADDRESSES = 16
"""The maximum number of addresses that a client keeps."""
MAX_IDLE_CONNECTIONS = 20
"""The maximum number of idle connections."""
RESENT_AFTER = "ringmaster-resent-after"
REVISION = "ringmaster-revision"
AGE_MS = "ringmaster-age-ms"
LATEST = "/v1/locks?limit=1"
"""A short answer that the leader confirms, and so comes with the latest revision."""


@dataclass(frozen=True)
class Request:
    """A request, and how long a node may take to answer it."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    key: str | None = field(default_factory=lambda: str(uuid.uuid4()))
    timeout: float = REQUEST_TIMEOUT


class Attempts:
    """What is known of the attempts of one request so far."""

    def __init__(self, seen: str | None) -> None:
        self._seen = seen
        self.in_doubt = False
        """Whether one of them may have taken effect."""

    def headers(self) -> dict[str, str]:
        """The cluster refuses an attempt where it no longer knows whether an earlier one took effect. It looks no
        further back than to the revision that this client had seen before the first one."""
        return {RESENT_AFTER: self._seen} if self.in_doubt and self._seen is not None else {}


class AsyncClient:
    """A client of one cluster, for asyncio. Closing it releases its locks."""

    def __init__(self, urls: str | Iterable[str]) -> None:
        given = [urls] if isinstance(urls, str) else list(urls)
        if not given:
            raise ValueError("a client needs the URL of at least one node")
        for url in given:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"the URL of a node looks like http://127.0.0.1:7701, not {url!r}")
        self._urls = [url.rstrip("/") for url in given][:MAX_ADDRESSES]
        self._discovered = False
        self._seen: str | None = None
        """The revision that the latest answer came with."""
        self._seen_at = 0.0
        """When the cluster was there at the latest."""
        self._held: set[AsyncLock] = set()
        # Nodes are reached directly: a proxy in the environment is for the internet.
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
            await lock._stop_and_release()
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
        """A lock, to use with ``async with`` or with ``acquire`` and ``release``. Times are in seconds."""
        from ._lock import AsyncLock

        return AsyncLock(
            self, name, ttl=ttl, wait=wait, owner=owner, shared=shared, limit=limit, meta=meta, on_lost=on_lost
        )

    async def get(self, path: str) -> Any:
        """Sends a GET to the API, for example to ``/v1/cluster``."""
        request = Request("GET", path, key=None)
        return await self._send_until(time.monotonic() + RETRY_FOR, lambda: request)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Sends a POST to the API."""
        request = Request("POST", path, body)
        return await self._send_until(time.monotonic() + RETRY_FOR, lambda: request)

    async def discover(self) -> None:
        """Fetches the addresses of the other nodes, once per client."""
        if self._discovered:
            return
        # Without retries: wrong addresses are reported at once.
        cluster = await self._send_to_any(Request("GET", "/v1/cluster", key=None), Attempts(None))
        members = [str(node["public_url"]).rstrip("/") for node in cluster["nodes"]]
        known = self._urls + [url for url in members if url not in self._urls]
        self._urls = known[:MAX_ADDRESSES]
        self._discovered = True

    async def _send_until(self, until: float, request: Callable[[], Request]) -> Any:
        """Sends a request to one node after the other until one gives a final answer or ``until`` has passed.

        ``request`` builds it for each attempt; all attempts carry the same key.
        """
        attempts = await self._attempts(request(), until)
        while True:
            try:
                return await self._send_to_any(request, attempts, until)
            except Problem as error:
                if not error.is_transient() or time.monotonic() + RETRY_PAUSE >= until:
                    raise
            except Unreachable:
                if time.monotonic() + RETRY_PAUSE >= until:
                    raise
            await asyncio.sleep(RETRY_PAUSE)

    async def _attempts(self, request: Request, until: float) -> Attempts:
        """Of a request whose first attempt has not been sent. A revision that is read later would say nothing about
        that attempt."""
        if request.key is None or self._seen is None:
            return Attempts(self._seen)
        now = time.monotonic()
        if now - self._seen_at > MAX_SEEN_AGE:
            try:
                async with asyncio.timeout(min(SEEN_TIMEOUT, until - now)):
                    latest = Request("GET", LATEST, key=None, timeout=SEEN_NODE_TIMEOUT)
                    await self._send_to_any(latest, Attempts(None))
            except (RingmasterError, TimeoutError):
                pass  # The revision from before serves: it is too low rather than too high.
        return Attempts(self._seen)

    async def _send_to_any(
        self, request: Request | Callable[[], Request], attempts: Attempts, until: float | None = None
    ) -> Any:
        """Tries each node once, until one gives a final answer."""
        failed: list[tuple[str, str]] = []
        transient: Problem | None = None
        for url in list(self._urls):
            try:
                answer = await self._send(url, request if isinstance(request, Request) else request(), attempts)
            except Problem as error:
                attempts.in_doubt |= error.is_in_doubt()
                if not error.is_transient():
                    self._prefer(url)
                    raise
                transient = error
                self._defer(url)
            except (httpx.HTTPError, TimeoutError, ConnectionError) as error:
                attempts.in_doubt |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                failed.append((url, str(error) or "no answer in time"))
                self._defer(url)
            else:
                self._prefer(url)
                return answer
            if until is not None and time.monotonic() >= until:
                break
        raise transient or Unreachable(failed)

    async def _send(self, url: str, request: Request, attempts: Attempts) -> Any:
        """Sends the request to one node and returns its answer."""
        headers = {} if request.key is None else {"idempotency-key": request.key} | attempts.headers()
        sent = time.monotonic()
        sending = asyncio.ensure_future(
            self._http.request(
                request.method,
                url + request.path,
                json=request.body,
                headers=headers,
                timeout=httpx.Timeout(request.timeout, connect=CONNECT_TIMEOUT),
            )
        )
        tasks: set[asyncio.Future[Any]] = {sending}
        if request.timeout > REQUEST_TIMEOUT:
            tasks.add(asyncio.ensure_future(self._unresponsive(url)))
        try:
            await asyncio.wait(tasks, timeout=request.timeout, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise TimeoutError("it stopped answering" if request.timeout > REQUEST_TIMEOUT else "no answer in time")
            response = sending.result()
            if (revision := response.headers.get(REVISION, "")).isdecimal():
                age = response.headers.get(AGE_MS, "")
                self._seen, self._seen_at = revision, sent - (int(age) / 1000 if age.isdecimal() else 0)
            return _read(url, response)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _unresponsive(self, url: str) -> None:
        """Ends when the node does not answer a probe: a connection to a paused or unreachable node stays open."""
        while True:
            await asyncio.sleep(PROBE_INTERVAL)
            try:
                async with asyncio.timeout(PROBE_TIMEOUT):
                    await self._http.get(f"{url}/livez")
            except (httpx.HTTPError, TimeoutError):
                return

    def _prefer(self, url: str) -> None:
        self._urls = [url] + [known for known in self._urls if known != url]

    def _defer(self, url: str) -> None:
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
    if _is_problem(body, response.status_code):
        raise Problem.of(body)
    if response.is_server_error or response.status_code in (408, 429):
        raise ConnectionError(f"it answered {response.status_code}, and not as a node")
    raise RingmasterError(f"{url} does not answer as a Ringmaster node would: it answered {response.status_code}")


def _is_problem(body: Any, status: int) -> bool:
    """Whether it is a problem document of a node. A proxy may answer with JSON of its own."""
    return isinstance(body, dict) and isinstance(body.get("code"), str) and body.get("status") == status
