"""The client itself: what it makes of proxies, forks, callbacks that fail, and of being closed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import SOON, Cluster, eventually
from test_locks import force_release, waiters

from ringmaster import AsyncClient, Client, LockLost, Problem, RingmasterError, Unreachable, _async


Headers = Mapping[str, str]


@contextmanager
def serve(answer: Callable[[str, Headers], tuple[int, Headers, str]]) -> Iterator[str]:
    """A server that answers requests, by method and headers, with a status, headers and a body."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = answer(self.command, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = handle_one  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy() -> Iterator[str]:
    """A proxy whose node does not answer in time."""
    with serve(lambda _, __: (504, {}, "<html>504 Gateway Time-out</html>")) as url:
        yield url


def test_a_failure_of_a_proxy_is_no_answer_of_a_node(node: Cluster, proxy: str) -> None:
    with Client([proxy, *node.urls]) as client, client.lock("behind a proxy", wait=1) as lock:
        lock.raise_if_lost()
    with Client(proxy) as client, pytest.raises(Unreachable, match="504"):
        client.lock("behind a proxy").acquire()


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "document",
    [
        {"code": 503, "message": "no upstream"},
        {"code": "unavailable", "status": "error"},
        {"code": "unavailable", "message": "no upstream"},
        {"code": "unavailable", "status": 500},
        ["no upstream"],
    ],
)
def test_an_error_of_a_proxy_in_json_is_no_answer_of_a_node(document: object) -> None:
    with (
        serve(lambda _, __: (503, JSON, json.dumps(document))) as proxy,
        serve(lambda _, __: (200, JSON, "7")) as node,
    ):
        with Client([proxy, node]) as client:
            assert client.post("/x", {}) == 7
        with Client([proxy, node]) as client:
            assert client.get("/x") == 7


def test_an_error_of_a_proxy_in_json_that_is_final_says_where_it_is_from() -> None:
    with (
        serve(lambda _, __: (403, JSON, '{"code": 403, "status": "denied"}')) as proxy,
        Client(proxy) as client,
        pytest.raises(RingmasterError, match="does not answer as a Ringmaster node would: it answered 403"),
    ):
        client.get("/x")


class Busy:
    """A node that refuses a later attempt where it has forgotten answers since the revision that the client names, as
    a real one does."""

    def __init__(self) -> None:
        self.revision, self.forgotten, self.unanswered = 40, 0, 0
        self.came: list[tuple[str, str | None]] = []

    def others_write(self) -> None:
        """And the next attempt is not answered."""
        self.revision, self.forgotten, self.unanswered = 1010, 1000, 1
        self.came.clear()

    def answer(self, method: str, headers: Headers) -> tuple[int, Headers, str]:
        after = headers.get("ringmaster-resent-after")
        self.came.append((method, after))
        refused = after is not None and int(after) < self.forgotten
        if method == "POST" and (refused or self.unanswered):
            self.unanswered = max(self.unanswered - 1, 0)
            return 503, JSON, json.dumps({"code": "outcome_unknown", "status": 503, "detail": "it is not known"})
        self.revision += method == "POST"
        return 200, JSON | {"ringmaster-revision": str(self.revision), "ringmaster-age-ms": "0"}, "{}"


def test_a_client_that_was_idle_looks_before_its_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy()
    with serve(busy.answer) as node, Client(node) as client:
        client.post("/x", {})
        busy.others_write()
        monkeypatch.setattr(_async, "MAX_SEEN_AGE", -1.0)
        client.post("/x", {})
        assert busy.came == [("GET", None), ("POST", None), ("POST", "1010")]
        # What was just seen is not read again.
        monkeypatch.undo()
        busy.came.clear()
        client.post("/x", {})
        assert busy.came == [("POST", None)]


def test_an_outcome_that_was_forgotten_during_the_attempts_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_async, "RETRY_FOR", 1.0)
    busy = Busy()
    with serve(busy.answer) as node, Client(node) as client:
        client.post("/x", {})
        busy.others_write()
        with pytest.raises(Problem, match="outcome_unknown"):
            client.post("/x", {})
        assert busy.came[:2] == [("POST", None), ("POST", "41")]


def test_after_a_wait_the_grant_is_confirmed(node: Cluster) -> None:
    with Client(node.urls) as client:
        holder = client.lock("confirmed", owner="ann").acquire()
        waiting = client.lock("confirmed", owner="ben", ttl=60, wait=SOON)
        thread = threading.Thread(target=waiting.acquire)
        thread.start()
        eventually("the queue", lambda: waiters(client, "confirmed") or None)
        holder.release()
        thread.join(SOON)
        assert waiting.valid_for() > 30
        shown = client.get("/v1/locks/confirmed")["holders"][0]
        assert shown["owner"] == "ben" and shown["expires_in_ms"] > 30_000, "not only until it is confirmed"
        waiting.release()


def test_a_client_of_another_process_says_so(node: Cluster) -> None:
    client = Client(node.urls)
    client.get("/v1/cluster")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            client.get("/v1/cluster")
        except RuntimeError as error:
            client.close()
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    deadline = time.monotonic() + SOON
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    client.get("/v1/cluster")
    client.close()


def test_a_callback_that_fails_is_logged(node: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: LockLost) -> None:
        raise ZeroDivisionError("in the callback")

    with caplog.at_level(logging.ERROR, logger="ringmaster"), Client(node.urls) as client:
        lock = client.lock("callback", ttl=0.6, on_lost=fail).acquire()
        force_release(client, "callback")
        eventually("the log", lambda: "in the callback" in caplog.text or None)
        with pytest.raises(LockLost):
            lock.release()


def test_a_closed_client_says_so(node: Cluster) -> None:
    client = Client(node.urls)
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="this client is closed"):
            client.get("/v1/cluster")
        with pytest.raises(RuntimeError, match="this client is closed"):
            client.lock("closed").acquire()
        gc.collect()
    client.close()


def test_a_lease_is_counted_as_it_is_asked_for(node: Cluster) -> None:
    with Client(node.urls) as client, client.lock("rounded", ttl=8.19):
        assert client.get("/v1/locks/rounded")["holders"][0]["ttl_ms"] == 8190


def test_an_acquire_that_is_cancelled_leaves_the_queue(node: Cluster) -> None:
    async def cancel() -> float:
        async with AsyncClient(node.urls) as client:
            holder = await client.lock("cancelled", owner="ann").acquire()
            gone = asyncio.ensure_future(client.lock("cancelled", owner="ben", ttl=10, wait=SOON).acquire())
            while not (await client.get("/v1/locks/cancelled"))["waiters"]:
                await asyncio.sleep(0.02)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert gone.cancelled()
            assert not (await client.get("/v1/locks/cancelled"))["waiters"]
            await holder.release()
            began = time.monotonic()
            async with client.lock("cancelled", owner="cat", wait=SOON):
                return time.monotonic() - began

    # A waiter that had stayed in the queue would be granted the lock, and keep it for its TTL of ten seconds.
    assert asyncio.run(asyncio.wait_for(cancel(), SOON)) < 8.0
