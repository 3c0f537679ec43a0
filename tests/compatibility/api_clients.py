"""Clients of the API, and the browser of the dashboard. Some have a script, which installs what they need."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

import metrics
import programs
from check import Checks
from cluster import ROOT
from lab import Lab

CHECKS = Checks()
SCRIPTS = ROOT / "scripts/compatibility.d"


def script(name: str, *arguments: str, **variables: str) -> str:
    """The last line that a script prints. What it prints meanwhile is passed on."""
    command = [str(SCRIPTS / f"{name}.sh"), *arguments]
    running = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    lines = []
    for line in running.stdout:
        lines.append(line.strip())
        print(f"    {line.rstrip()}", flush=True)
    assert running.wait() == 0, f"{name}.sh ended with {running.returncode}"
    return "; ".join(lines[-2:])


@CHECKS.row("metrics")
def metrics_format(lab: Lab) -> str:
    url = lab.cluster.urls[0]
    metrics.main(url)
    with urlopen(f"{url}/metrics", timeout=10) as response:
        text = response.read().decode()
    promtool = programs.find("promtool")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, env=programs.environment(promtool), capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    return "promtool and the strict parser of prometheus-client accept them"


@CHECKS.row("prometheus")
def prometheus(lab: Lab) -> str:
    return script("prometheus", PROMETHEUS=programs.find("prometheus"))


@CHECKS.row("stream")
def stream(lab: Lab) -> str:
    # By default the largest state that a cluster holds, which takes some minutes.
    return script("stream_clients", *os.environ.get("STREAM_SIZE", "").split())


@CHECKS.row("websocket-limits")
def websocket_limits(lab: Lab) -> str:
    refused = asyncio.run(refusals())
    assert refused == {"websockets": (True, False), "aiohttp": (True, False)}, refused
    return "websockets refuses 1 MiB and a byte, aiohttp 4 MiB; one byte less is read by each"


async def refusals() -> dict[str, tuple[bool, bool]]:
    """By client: whether it refuses a message of its limit, and one that is a byte smaller."""
    import aiohttp
    import websockets

    async def send(connection: websockets.ServerConnection) -> None:
        with suppress(websockets.ConnectionClosed):
            await connection.send("x" * int(connection.request.path.removeprefix("/")))

    async def by_websockets(url: str) -> bool:
        async with websockets.connect(url) as client:
            try:
                return len(await client.recv()) == 0
            except websockets.ConnectionClosed:
                return True

    async def by_aiohttp(url: str) -> bool:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as client:
            return bool((await client.receive()).type != aiohttp.WSMsgType.TEXT)

    async with websockets.serve(send, "127.0.0.1", 0, compression=None) as server:
        [address, *_] = (socket.getsockname() for socket in server.sockets)
        url = f"ws://127.0.0.1:{address[1]}"
        limits = {"websockets": (by_websockets, (1 << 20) + 1), "aiohttp": (by_aiohttp, 4 << 20)}
        return {
            name: (await client(f"{url}/{limit}"), await client(f"{url}/{limit - 1}"))
            for name, (client, limit) in limits.items()
        }


@CHECKS.row("openapi-clients")
def openapi_clients(lab: Lab) -> str:
    programs.find("go")
    programs.find("npm")
    return script("openapi_clients")


class Page(BaseHTTPRequestHandler):
    """A page that reads from its query's URL, under a policy that allows it. The title is what came of it."""

    def do_GET(self) -> None:
        to = self.path.partition("?")[2]
        body = (
            f"<title>waiting</title><script>fetch('{to}').then(() => document.title = 'allowed',"
            "() => document.title = 'blocked')</script>"
            if to
            else "ok"
        )
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("access-control-allow-origin", "*")
        if to:
            self.send_header("content-security-policy", f"connect-src {to}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class OverIpv6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@CHECKS.row("chromium-ipv6")
def chromium_ipv6(lab: Lab) -> str:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Page), OverIpv6(("::1", 0), Page)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ipv4, ipv6 = (server.server_address[1] for server in servers)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={lab.folder}/chromium"]
    seen = {}
    try:
        for to in (f"http://127.0.0.1:{ipv4}", f"http://[::1]:{ipv6}"):
            url = f"http://127.0.0.1:{ipv4}/?{to}"
            dumped = programs.run(
                programs.find("chromium"), *options, "--virtual-time-budget=5000", "--dump-dom", url
            )
            seen[to] = dumped.partition("<title>")[2].partition("<")[0]
    finally:
        for server in servers:
            server.shutdown()
    assert list(seen.values()) == ["allowed", "blocked"], seen
    return "a source with an IPv4 address is allowed, one with an IPv6 address is blocked"
