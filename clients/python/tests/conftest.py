"""Clusters of real processes. RINGMASTER_BIN names the program."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

SOON = 30.0
"""How long tests wait for an immediate result. Loose: the machine may be busy."""

T = TypeVar("T")


def eventually(what: str, ask: Callable[[], T | None]) -> T:
    """Polls until there is an answer."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {SOON} s for {what}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Some nodes, the first of which has created the cluster. Nodes count from 0."""

    def __init__(self, program: str, count: int, folder: Path) -> None:
        self.urls: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for index in range(count):
            api, peer = free_ports(2)
            start = ["--bootstrap"] if index == 0 else ["--join", self.urls[0]]
            addresses = ["--api-addr", f"127.0.0.1:{api}", "--peer-addr", f"127.0.0.1:{peer}"]
            data = ["--id", str(index + 1), "--data-dir", str(folder / f"node-{index}")]
            self.urls.append(f"http://127.0.0.1:{api}")
            with open(folder / f"node-{index}.log", "wb") as output:
                self.processes.append(
                    subprocess.Popen(
                        [program, "serve", *data, *addresses, *start],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                )
        eventually("the cluster to form", lambda: self.formed(count) or None)

    def formed(self, count: int) -> bool:
        try:
            cluster = httpx.get(f"{self.urls[0]}/v1/cluster", trust_env=False).json()
            operations = httpx.get(f"{self.urls[0]}/v1/operations", trust_env=False).json()
        except httpx.HTTPError:
            return False
        ready = [node for node in cluster.get("nodes", []) if node["voter"] and node["status"] == "up"]
        running = [each for each in operations.get("items", []) if each["status"] == "running"]
        return len(ready) == count and cluster["leader"] is not None and not running

    def signal(self, index: int, number: signal.Signals) -> None:
        self.processes[index].send_signal(number)

    def kill(self, index: int) -> None:
        self.processes[index].kill()
        self.processes[index].wait()

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def program() -> str:
    path = os.environ.get("RINGMASTER_BIN") or shutil.which("ringmaster")
    assert path, "RINGMASTER_BIN names the program under test"
    return path


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node, shared by the tests without faults."""
    cluster = Cluster(program(), 1, tmp_path_factory.mktemp("node"))
    yield cluster
    cluster.stop()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(program(), 3, tmp_path)
    yield cluster
    cluster.stop()
