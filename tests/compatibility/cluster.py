"""A cluster of real nodes for foreign programs. RINGMASTER_BIN names the program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
SOON = 60.0

T = TypeVar("T")


def binary() -> str:
    """The program: RINGMASTER_BIN, or the fastest one that was built."""
    if named := os.environ.get("RINGMASTER_BIN"):
        return named
    built = [ROOT / "target" / profile / "ringmaster" for profile in ("release", "demo", "debug")]
    found = next((program for program in built if program.exists()), None)
    assert found, "there is no program: build it with `cargo build`, or name one in RINGMASTER_BIN"
    return str(found)


def eventually(what: str, ask: Callable[[], T | None], within: float = SOON) -> T:
    """Polls until there is an answer."""
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s for {what}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface, at and above FIRST_PORT if it is set."""
    first, found = int(os.environ.get("FIRST_PORT", "0")), list[int]()
    candidates = iter(range(first, 65536)) if first else iter(lambda: 0, 1)
    held = []
    while len(found) < count:
        try:
            held.append(socket.create_server(("127.0.0.1", next(candidates))))
        except OSError:
            continue
        found.append(held[-1].getsockname()[1])
    for each in held:
        each.close()
    return found


def has_route(host: str, port: int, name: str, path: str) -> bool:
    """Asks without an endpoint: a body that no route allows is refused, but only where there is a route."""
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request("POST", path, headers={"host": name, "content-length": str(1 << 41)})
        return connection.getresponse().status == 413
    finally:
        connection.close()


class Cluster:
    """Nodes count from 1. Each has a proxy and a DNS server."""

    def __init__(self, count: int = 3) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ringmaster-")
        ports = free_ports(4 * count)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:count]]
        self.proxies = [f"127.0.0.1:{port}" for port in ports[2 * count : 3 * count]]
        self.dns = ports[3 * count :]
        self.processes: list[subprocess.Popen[bytes]] = []
        for index in range(count):
            addresses = ["--api-addr", f"127.0.0.1:{ports[index]}", "--peer-addr", f"127.0.0.1:{ports[count + index]}"]
            doors = ["--proxy-addr", self.proxies[index], "--dns-addr", f"127.0.0.1:{self.dns[index]}"]
            data = ["--id", str(index + 1), "--data-dir", f"{self.folder.name}/node-{index + 1}"]
            start = ["--bootstrap"] if index == 0 else ["--join", self.urls[0]]
            with open(f"{self.folder.name}/node-{index + 1}.log", "wb") as log:
                arguments = [binary(), "serve", *data, *addresses, *doors, *start]
                self.processes.append(subprocess.Popen(arguments, stdout=log, stderr=log))
        eventually("the cluster to form", lambda: self._formed(count) or None)

    def _formed(self, count: int) -> bool:
        try:
            cluster = self.call("GET", "/v1/cluster")
            running = self.call("GET", "/v1/operations")["items"]
        except (URLError, OSError):
            return False
        voters = [node for node in cluster["nodes"] if node["voter"] and node["status"] == "up"]
        ended = all(operation["status"] == "succeeded" for operation in running)
        return len(voters) == count and cluster["leader"] is not None and ended

    def write(self, method: str, path: str, body: Any, node: int = 1) -> Any:
        """A write that is repeated where its outcome is unknown. Under the same key it is done once."""
        key = str(uuid.uuid4())

        def once() -> tuple[Any] | None:
            try:
                return (self.call(method, path, body, node, key),)
            except (AssertionError, OSError) as error:
                if isinstance(error, AssertionError) and ": 503 " not in str(error):
                    raise
                return None

        return eventually(f"{method} {path}", once, 120)[0]

    def call(self, method: str, path: str, body: Any = None, node: int = 1, key: str | None = None) -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        if key is not None:
            headers["idempotency-key"] = key
        data = json.dumps(body).encode() if body is not None else None
        request = Request(f"{self.urls[node - 1]}{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=30) as response:
                return json.loads(response.read() or "null")
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def serve(self, name: str, addrs: list[str], route: dict[str, Any] | None = None, **upstream: Any) -> str:
        """An upstream and a route for the host of its name, once the proxy of node 1 has endpoints for it."""
        self.configure(name, addrs, route, **upstream)
        query = f"/v1/upstreams/{name}/healthy"
        eventually(
            f"endpoints of {name}", lambda: len(self.call("GET", query)["endpoints"]) == len(addrs) or None
        )
        return name

    def configure(self, name: str, addrs: list[str], route: dict[str, Any] | None = None, **upstream: Any) -> None:
        """The same, whether or not its endpoints are healthy."""
        endpoints = [{"id": f"e{number}", "addr": addr} for number, addr in enumerate(addrs, 1)]
        self.call("PUT", f"/v1/upstreams/{name}", {"endpoints": endpoints} | upstream)
        routed = {"path_prefix": "/", "host": name, "upstream": name} | (route or {})
        self.call("PUT", f"/v1/routes/{name}", routed)
        # The proxy takes the route a moment after the API.
        host, port = self.proxies[0].split(":")
        asked = (host, int(port), routed["host"] or name, routed["path_prefix"])
        eventually("the route", lambda: has_route(*asked) or None, 10)

    def kill(self, node: int) -> None:
        self.processes[node - 1].kill()
        self.processes[node - 1].wait()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.folder.cleanup()
