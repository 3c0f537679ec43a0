"""A cluster of real nodes for foreign programs. RINGMASTER_BIN names the program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
SOON = 60.0

T = TypeVar("T")


def binary() -> str:
    return os.environ.get("RINGMASTER_BIN", str(ROOT / "target/debug/ringmaster"))


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


class Cluster:
    """Nodes count from 1. Each has a proxy."""

    def __init__(self, count: int = 3) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ringmaster-")
        ports = free_ports(3 * count)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:count]]
        self.proxies = [f"127.0.0.1:{port}" for port in ports[2 * count :]]
        self.processes: list[subprocess.Popen[bytes]] = []
        for index in range(count):
            addresses = ["--api-addr", f"127.0.0.1:{ports[index]}", "--peer-addr", f"127.0.0.1:{ports[count + index]}"]
            proxy = ["--proxy-addr", self.proxies[index]]
            data = ["--id", str(index + 1), "--data-dir", f"{self.folder.name}/node-{index + 1}"]
            start = ["--bootstrap"] if index == 0 else ["--join", self.urls[0]]
            with open(f"{self.folder.name}/node-{index + 1}.log", "wb") as log:
                arguments = [binary(), "serve", *data, *addresses, *proxy, *start]
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

    def call(self, method: str, path: str, body: Any = None, node: int = 1) -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        request = Request(f"{self.urls[node - 1]}{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=30) as response:
                return json.loads(response.read() or "null")
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error

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
