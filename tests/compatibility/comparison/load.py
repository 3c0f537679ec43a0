"""Clients: Python's http.client, in threads. A request has failed that did not get an answer below 300."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from .fronts import Front

# After a failure.
PAUSE = 0.1


@dataclass
class Count:
    requests: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, reason: str | None) -> None:
        with self.lock:
            self.requests += 1
            if reason is not None:
                self.failed += 1
                self.reasons[reason] += 1


class Client:
    """One connection, which is opened again where it was closed."""

    def __init__(self, front: Front, count: Count) -> None:
        self.front, self.count = front, count
        self.connection = HTTPConnection(front.host, front.port, timeout=40)

    def send(self, method: str, path: str = "/", body: bytes | None = None) -> bool:
        failure = self._failure(method, path, body)
        self.count.add(failure)
        return failure is None

    def _failure(self, method: str, path: str, body: bytes | None) -> str | None:
        try:
            self.connection.request(method, path, body, {"host": self.front.name})
            response = self.connection.getresponse()
            response.read()
            return None if response.status < 300 else str(response.status)
        except (OSError, HTTPException) as error:
            self.close()
            return type(error).__name__

    def close(self) -> None:
        self.connection.close()


def body_of(method: str) -> bytes | None:
    return b"body" if method == "POST" else None


def at_once(threads: Iterable[threading.Thread]) -> None:
    started = list(threads)
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def idle_between(front: Front, method: str, gaps: list[float], keeps: bool, count: Count) -> threading.Thread:
    """Requests with pauses between them, on a connection that the client keeps or on new ones."""

    def work() -> None:
        client = Client(front, count)
        for gap in gaps:
            client.send(method, body=body_of(method))
            if not keeps:
                client.close()
            time.sleep(gap)
        client.close()

    return threading.Thread(target=work)


def in_a_row(front: Front, method: str, clients: int, requests: int) -> tuple[Count, list[threading.Thread]]:
    count = Count()

    def work() -> None:
        client = Client(front, count)
        for _ in range(requests):
            client.send(method, body=body_of(method))
        client.close()

    return count, [threading.Thread(target=work) for _ in range(clients)]


class Load:
    """Clients that send until they are stopped."""

    def __init__(self, front: Front, method: str, path: str, clients: int) -> None:
        self.count, self._stop = Count(), threading.Event()
        arguments = (front, method, path)
        self.threads = [threading.Thread(target=self._work, args=arguments) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _work(self, front: Front, method: str, path: str) -> None:
        client = Client(front, self.count)
        while not self._stop.is_set():
            if not client.send(method, path, body_of(method)):
                # As clients do. Otherwise the one that is refused at once would count most.
                time.sleep(PAUSE)
        with suppress(OSError):
            client.close()

    def stop(self) -> Count:
        self._stop.set()
        for thread in self.threads:
            thread.join()
        return self.count
