"""Every expression of docs/grafana.json finds data in a real Prometheus.

Usage: board.py PROMETHEUS. Three nodes are scraped once a second while everything that the board shows happens: requests
of all kinds, a change of leader, a node that dies. An expression passes once it has a value that is a number.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from cluster import ROOT, Cluster, eventually, free_ports


class Endpoint(BaseHTTPRequestHandler):
    """Answers in time, slowly, or with an error, as the path says."""

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            time.sleep(0.5)
        self.send_response(503 if self.path.startswith("/error") else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def expressions() -> list[tuple[str, str]]:
    board = json.loads((ROOT / "docs/grafana.json").read_text())
    targets = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    variables = {"$job": ".*", "$instance": ".*", "$__rate_interval": "15s"}
    filled = []
    for title, expression in targets:
        for name, value in variables.items():
            expression = expression.replace(name, value)
        filled.append((title, expression))
    return filled


def traffic(cluster: Cluster, stop: threading.Event) -> None:
    """Requests to the API and through the proxies, until it is stopped."""

    def get(url: str, host: str | None = None, within: float = 5) -> None:
        with suppress(OSError):
            urlopen(Request(url, headers={"host": host} if host else {}), timeout=within).read()

    number = 0
    while not stop.wait(0.05):
        number += 1
        for path in ("/v1/cluster", "/v1/nodes"):
            get(f"{cluster.urls[1]}{path}")
        if number % 20 == 1:
            # A revision to come is awaited for a moment, and then answered with 503.
            get(f"{cluster.urls[1]}/v1/state?at=99999999", within=10)
        with suppress(AssertionError, OSError):
            cluster.call("PUT", "/v1/settings/number", {"value": number}, 2)
            lock = {"name": "jobs", "owner": f"worker-{number}", "ttl_ms": 1000}
            cluster.call("POST", "/v1/locks/acquire", lock, 2)
        proxy = f"http://{cluster.proxies[1]}"
        for path in ("/", "/error", "/nowhere"):
            get(f"{proxy}{path}", "web")
        get(f"{proxy}/", "dead")
        # A client that leaves before the answer.
        get(f"{proxy}/slow", "web", within=0.05)


def follow(cluster: Cluster, node: int) -> socket.socket:
    """A stream that is read by the kernel alone."""
    host, port = cluster.urls[node - 1].removeprefix("http://").split(":")
    stream = socket.create_connection((host, int(port)))
    stream.sendall(
        f"GET /v1/stream HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return stream


def ask(prometheus: str, expression: str) -> str | None:
    """Why the expression finds nothing, or none where it finds a number."""
    query = urlencode({"query": expression})
    with urlopen(f"{prometheus}/api/v1/query?{query}", timeout=10) as response:
        answer = json.load(response)
    values = [float(each["value"][1]) for each in answer["data"]["result"]]
    if not values:
        return "no data"
    return None if any(math.isfinite(value) for value in values) else "not a number"


def main(program: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", free_ports(1)[0]), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Cluster(3) as cluster, tempfile.TemporaryDirectory() as folder:
        addr = f"127.0.0.1:{server.server_address[1]}"
        endpoints = {"web": [addr], "dead": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        for name, addrs in endpoints.items():
            listed = [{"id": f"e{number}", "addr": addr} for number, addr in enumerate(addrs)]
            cluster.call("PUT", f"/v1/upstreams/{name}", {"endpoints": listed})
            cluster.call("PUT", f"/v1/routes/{name}", {"path_prefix": "/", "host": name, "upstream": name})
        [port] = free_ports(1)
        targets = [url.removeprefix("http://") for url in cluster.urls]
        jobs = [{"job_name": "ringmaster", "static_configs": [{"targets": targets}]}]
        config = Path(folder) / "prometheus.yml"
        # JSON is YAML.
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        running = subprocess.Popen(
            [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stop, streams = threading.Event(), [follow(cluster, 2)]
        work = threading.Thread(target=traffic, args=(cluster, stop))
        work.start()
        try:
            time.sleep(5)
            # Not the node that is asked: its links are the ones that are missing.
            cluster.kill(3)
            missing = dict.fromkeys(expressions(), "not asked")
            assert len(missing) > 30

            def all_found() -> bool | None:
                streams.append(follow(cluster, 1))
                for target in list(missing):
                    why = ask(f"http://127.0.0.1:{port}", target[1])
                    if why is None:
                        del missing[target]
                    else:
                        missing[target] = why
                return True if not missing else None

            try:
                eventually("all expressions", all_found, 90)
            except AssertionError:
                for (title, expression), why in missing.items():
                    print(f"{title}: {why}: {expression}", file=sys.stderr)
                raise
            print(f"{len(expressions())} expressions have data")
        finally:
            stop.set()
            work.join()
            for stream in streams:
                stream.close()
            running.terminate()
            running.wait()
            server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
