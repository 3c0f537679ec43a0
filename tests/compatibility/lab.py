"""What the checks share: a folder, and a cluster that is started when the first check needs it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

from cluster import Cluster


class Lab:
    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ringmaster-lab-")))
        # Workers of nginx and Apache run as another user.
        self.folder.chmod(0o755)
        self._served = 0

    @cached_property
    def cluster(self) -> Cluster:
        return self._stack.enter_context(Cluster(3))

    @property
    def proxy(self) -> tuple[str, int]:
        """Of node 1."""
        host, port = self.cluster.proxies[0].split(":")
        return host, int(port)

    def serve(self, *addrs: str, route: dict[str, Any] | None = None, **upstream: Any) -> str:
        """A new upstream behind the proxies. The answer is its name, and the host of its route."""
        self._served += 1
        return self.cluster.serve(f"u{self._served}", list(addrs), route, **upstream)

    def serve_unhealthy(self, *addrs: str, **upstream: Any) -> str:
        """The same, whether or not its endpoints are healthy."""
        self._served += 1
        name = f"u{self._served}"
        self.cluster.configure(name, list(addrs), **upstream)
        return name

    def metric(self, family: str, upstream: str) -> float:
        """The sum of a family over the endpoints of an upstream, at node 1."""
        with urlopen(f"{self.cluster.urls[0]}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        of_upstream = [line for line in lines if line.startswith(family) and f'upstream="{upstream}"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in of_upstream)

    def live(self, name: str) -> dict[str, Any]:
        """What the proxy of node 1 saw of an upstream."""
        live: dict[str, Any] = self.cluster.call("GET", f"/v1/upstreams/{name}/live")
        return live

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
