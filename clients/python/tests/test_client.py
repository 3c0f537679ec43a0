"""The client itself: what it makes of proxies, forks, callbacks that fail, and of being closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import SOON, Cluster, eventually
from test_locks import force_release, waiters

from ringmaster import AsyncClient, Client, LockLost, Unreachable


class Proxy(BaseHTTPRequestHandler):
    """A proxy whose node does not answer in time."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(504)
        self.end_headers()
        self.wfile.write(b"<html>504 Gateway Time-out</html>")

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_failure_of_a_proxy_is_no_answer_of_a_node(node: Cluster, proxy: str) -> None:
    with Client([proxy, *node.urls]) as client, client.lock("behind a proxy", wait=1) as lock:
        lock.raise_if_lost()
    with Client(proxy) as client, pytest.raises(Unreachable, match="504"):
        client.lock("behind a proxy").acquire()


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
            gone = asyncio.ensure_future(client.lock("cancelled", owner="ben", wait=SOON).acquire())
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

    assert asyncio.run(asyncio.wait_for(cancel(), SOON)) < 1.0
